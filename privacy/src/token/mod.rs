//! Anonymous tokens: Privacy Pass, RFC 9578 type 0x0002 (blind RSA, publicly verifiable).

pub mod redeem;
