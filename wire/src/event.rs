//! Events: the only thing that a guest says to its operator.
//!
//! An event is 16 bytes, little-endian: `0xC1`, version 1, code (`u16`), detail (`u32`), value (`u64`). The guest
//! writes them byte by byte to I/O port [`PORT`] (QEMU's `isa-debugcon`).

use crate::termination::Termination;

/// I/O port that carries events.
pub const PORT: u16 = 0xe9;
/// Bytes of one encoded event.
pub const EVENT_BYTES: usize = 16;

const MAGIC: u8 = 0xc1;
const VERSION: u8 = 1;

/// Which device an event speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeviceKind {
    /// virtio-net.
    Network = 1,
    /// virtio-blk with the weights.
    Weights = 2,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestEnd {
    /// The whole answer was sent.
    Complete = 1,
    /// The answer reached its length limit.
    Length = 2,
    /// The request was refused: malformed, too long, or over a limit.
    Refused = 3,
    /// The client left before the answer was complete.
    ClientGone = 4,
}

macro_rules! events {
    ($($(#[doc = $doc:literal])* $name:ident { $($field:ident : $ty:tt as $place:ident),* } = $code:literal => $text:literal,)*) => {
        /// One event. Closed on purpose: every field is a number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[doc = $doc])* $name {
                $(
                    /// See the variant's text.
                    $field: $ty,
                )*
            },)*
        }

        impl Event {
            fn parts(self) -> (u16, u32, u64) {
                #[allow(unused_mut, unused_assignments)]
                match self {
                    $(Self::$name { $($field),* } => {
                        let (mut detail, mut value) = (0u32, 0u64);
                        $(events!(@put $place, detail, value, $ty, $field);)*
                        ($code, detail, value)
                    })*
                }
            }

            fn from_parts(code: u16, detail: u32, value: u64) -> Option<Self> {
                let _ = (detail, value);
                Some(match code {
                    $($code => Self::$name { $($field: events!(@get $place, detail, value, $ty)),* },)*
                    _ => return None,
                })
            }

            /// Code and name of every event there is.
            pub const ALL: &'static [(u16, &'static str)] = &[$(($code, stringify!($name)),)*];

            /// The event's name, stable for scripts.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name),)* }
            }

            /// What the event means, for a person; numbers are in [`core::fmt::Debug`].
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$name { .. } => $text,)* }
            }
        }
    };
    (@put detail, $d:ident, $v:ident, u32, $f:ident) => { $d = $f; };
    (@put detail, $d:ident, $v:ident, $t:tt, $f:ident) => { $d = $f as u32; };
    (@put value, $d:ident, $v:ident, $t:tt, $f:ident) => { $v = $f; };
    (@get detail, $d:ident, $v:ident, u32) => { $d };
    (@get detail, $d:ident, $v:ident, DeviceKind) => { match $d { 1 => DeviceKind::Network, 2 => DeviceKind::Weights, _ => return None } };
    (@get detail, $d:ident, $v:ident, RequestEnd) => {
        match $d { 1 => RequestEnd::Complete, 2 => RequestEnd::Length, 3 => RequestEnd::Refused, 4 => RequestEnd::ClientGone, _ => return None }
    };
    (@get detail, $d:ident, $v:ident, Termination) => { Termination::from_code(u8::try_from($d).ok()?)? };
    (@get value, $d:ident, $v:ident, u64) => { $v };
}

events! {
    /// The first event: the image runs in long mode on its own tables.
    Started {} = 1 => "the image has started",
    /// All measured RAM is validated.
    MemoryValidated { mib: u32 as detail } = 2 => "memory is validated",
    /// The random number generator passed its health test.
    EntropyReady {} = 3 => "the random number generator is ready",
    /// The first report came from the AMD-SP.
    Attested {} = 4 => "the AMD-SP answered with a report",
    /// A device was brought up.
    DeviceReady { device: DeviceKind as detail } = 5 => "a device is ready",
    /// A device broke its protocol and is not used again.
    DeviceDead { device: DeviceKind as detail } = 6 => "a device broke its protocol and is not used any more",
    /// So much of the weights has been copied and hashed.
    WeightsProgress { percent: u32 as detail } = 7 => "weights are being copied and hashed",
    /// The weights have the manifest's root.
    WeightsVerified { bytes: u64 as value } = 8 => "the weights are those of the manifest",
    /// The engine is ready.
    ModelReady {} = 9 => "the model is loaded",
    /// The service listens on this TCP port of the guest.
    Listening { port: u32 as detail } = 10 => "the guest is listening",
    /// A client connected.
    ConnectionOpened { open: u32 as detail } = 11 => "a connection was opened",
    /// A connection ended.
    ConnectionClosed { open: u32 as detail } = 12 => "a connection was closed",
    /// A TLS handshake was refused or broke off.
    HandshakeFailed {} = 13 => "a TLS handshake failed",
    /// Fresh evidence was issued for so many sessions with one report.
    EvidenceIssued { sessions: u32 as detail } = 14 => "fresh evidence was issued",
    /// A request was taken on; `tokens` is the length of its prompt.
    RequestStarted { tokens: u32 as detail } = 15 => "a request was started",
    /// A request ended after so many generated tokens.
    RequestEnded { end: RequestEnd as detail, tokens: u64 as value } = 16 => "a request has ended",
    /// A session's keys, prompt, KV cache and output were wiped.
    SessionWiped {} = 17 => "a session was wiped",
    /// A Rust panic at this line; `file` is the FNV-1a hash of the source file's path.
    Panicked { line: u32 as detail, file: u64 as value } = 18 => "the guest panicked",
    /// The guest ends itself; `value` is specific to the reason (an address, a leaf, a vector).
    Terminating { reason: Termination as detail, value: u64 as value } = 19 => "the guest is ending itself",
    /// The service's key and certificate were replaced.
    CertificateRotated {} = 20 => "the TLS key and certificate were replaced",
}

impl Event {
    /// The event's 16 bytes.
    pub fn encode(self) -> [u8; EVENT_BYTES] {
        let (code, detail, value) = self.parts();
        let mut out = [0; EVENT_BYTES];
        out[0] = MAGIC;
        out[1] = VERSION;
        out[2..4].copy_from_slice(&code.to_le_bytes());
        out[4..8].copy_from_slice(&detail.to_le_bytes());
        out[8..16].copy_from_slice(&value.to_le_bytes());
        out
    }

    /// Reads one event; `None` if the bytes are not one (the reader then resynchronises by one byte).
    pub fn decode(bytes: &[u8; EVENT_BYTES]) -> Option<Self> {
        if bytes[0] != MAGIC || bytes[1] != VERSION {
            return None;
        }
        let code = u16::from_le_bytes([bytes[2], bytes[3]]);
        let detail = u32::from_le_bytes(bytes[4..8].try_into().ok()?);
        let value = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
        Self::from_parts(code, detail, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_back() {
        for event in [
            Event::Started {},
            Event::MemoryValidated { mib: 1024 },
            Event::DeviceReady { device: DeviceKind::Weights },
            Event::WeightsVerified { bytes: u64::MAX },
            Event::RequestEnded { end: RequestEnd::ClientGone, tokens: 7 },
            Event::Panicked { line: 12, file: 0x0123_4567_89ab_cdef },
            Event::Terminating { reason: Termination::CpuidLeaf, value: 0x8000_001f },
        ] {
            assert_eq!(Event::decode(&event.encode()), Some(event));
        }
    }

    #[test]
    fn foreign_bytes_are_no_event() {
        let mut bytes = Event::Started {}.encode();
        bytes[0] ^= 1;
        assert_eq!(Event::decode(&bytes), None);
        let mut bytes = Event::Terminating { reason: Termination::Panic, value: 0 }.encode();
        bytes[4] = 0xff;
        assert_eq!(Event::decode(&bytes), None);
        let mut bytes = Event::Started {}.encode();
        bytes[2] = 0xff;
        assert_eq!(Event::decode(&bytes), None);
    }
}
