//! The software AMD Secure Processor: its side of a running guest.
