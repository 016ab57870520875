//! The decoder in candle: a Llama-architecture network that trains on a CPU.

pub mod attention;
pub mod circuit;
pub mod decoder;
pub mod ops;
