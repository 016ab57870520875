//! Anonymous tokens: Privacy Pass, RFC 9578 type 0x0002 (blind RSA, publicly verifiable).
//!
//! A client blinds a random message, the issuer signs it for an account without seeing it, the client removes the blinding
//! and has a token that anyone can check with the public key. So the issuer knows who got tokens and not which, and a
//! gateway knows which token it was given and not whose.
//!
//! * [`challenge`] and [`structure`] are the encodings, [`key`] the issuer's public key, [`request`] the client's part of
//!   issuance, [`wallet`] where a client keeps tokens, [`supply`] what it asks for them;
//! * [`redeem`] is what a gateway asks, [`till`] what answers, and [`spent`] where it remembers.

pub mod challenge;
pub mod key;
pub mod redeem;
pub mod request;
#[cfg(feature = "redeem")]
pub mod spent;
pub mod structure;
pub mod supply;
#[cfg(feature = "redeem")]
pub mod till;
pub mod wallet;

/// The one token type that is issued and taken: "Blind RSA (2048-bit)", RFC 9578 §8.2.2.
pub const TOKEN_TYPE: u16 = 0x0002;

/// Bytes of a signature and of a blinded message: Nk of RFC 9578 §8.2.2, an RSA modulus of 2048 bits.
pub const NK: usize = 256;

/// The bytes are not the structure that was expected: too short, too long, of another type, or encoded in another way
/// than the one that its specification allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the structure that was expected: cut off, too long, or of another type")]
pub struct Malformed;

/// Takes the first `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (first, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*first)
}

/// Takes the first `length` bytes.
fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (first, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(first)
}
