//! Sessions over TCP: with the guest's own service on this host, and with servers that are not what they should be.
mod command_line;
mod evidence;
mod guest;
mod handshake;
mod keys;
mod log;
mod stream;
mod support;
mod way;
