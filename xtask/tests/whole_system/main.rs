//! Tests of the whole system: the programs as people run them, and the real image in the SNP model.
#![forbid(unsafe_code)]

mod bad_input;
mod digests;
mod fixture;
mod fleet;
mod hostile;
mod hosts;
mod log;
mod main_job;
mod memory;
mod privacy;
mod qmp;
mod research;
mod shape;
mod stack;
mod tap;
mod tls;
