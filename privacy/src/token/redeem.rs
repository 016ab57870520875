//! What a gateway asks before it opens a session.

use std::future::Future;
use std::pin::Pin;

/// Why a token does not pay for a session. What it says goes to the client: nothing of the token or of others is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a token, or not of a kind that this gateway takes.
    #[error("the token cannot be read")]
    Malformed,
    /// Of an issuer key that this gateway does not know or that is past its epoch: the client fetches new tokens.
    #[error("the token's issuer key is not in use: fetch new tokens")]
    UnknownKey,
    /// Made for another origin or challenge.
    #[error("the token was not made for this gateway")]
    OtherChallenge,
    /// Its signature does not hold.
    #[error("the token's signature does not hold")]
    Signature,
    /// It was used before.
    #[error("the token was spent before: take another")]
    Spent,
    /// The store of spent tokens does not answer. The token may or may not be spent now.
    #[error("the store of spent tokens does not answer: try again later with another token")]
    Unavailable,
}

/// The answer to come.
pub type Redeeming<'a> = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

/// Spends tokens: each at most once, on all gateways that share the store, also across crashes.
pub trait Redeem: Send + Sync {
    /// Spends `token`, the `Token` structure of RFC 9577 §2.2.
    fn redeem<'a>(&'a self, token: &'a [u8]) -> Redeeming<'a>;
}
