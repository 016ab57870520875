//! The model's own log: the first serial port. The guest cannot reach it.

use super::cpu::{in8, out8};
use core::fmt;

const DATA: u16 = 0x3F8;
const LINE_STATUS: u16 = DATA + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// A port that does not drain must not hang the model.
const PATIENCE: u32 = 100_000;

/// The serial port.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: a 16550 UART touches no memory.
            unsafe {
                let mut tries = 0;
                while in8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 && tries < PATIENCE {
                    tries += 1;
                }
                out8(DATA, byte);
            }
        }
        Ok(())
    }
}

/// Writes one line to the log, with the model's name before it.
macro_rules! log {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The port's `write_str` does not fail.
        let _ = writeln!($crate::machine::serial::Serial, "snp-model: {}", format_args!($($argument)*));
    }};
}
pub(crate) use log;
