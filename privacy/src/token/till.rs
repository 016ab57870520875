//! The check of a token by a gateway: key, challenge, signature, and only then the store.

use super::challenge::Challenge;
use super::redeem::{Redeem, Redeeming, Refusal};
use super::spent::{Spend, Spent};
use super::structure::Token;
use crate::clock;
use crate::keys::IssuerKey;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// Takes tokens of one issuer for one or more challenges.
pub struct Till {
    challenges: Vec<[u8; 32]>,
    keys: RwLock<Keys>,
    spent: Spent,
    clock: fn() -> SystemTime,
}

type Keys = BTreeMap<[u8; 32], Arc<IssuerKey>>;

impl std::fmt::Debug for Till {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Till").field("keys", &self.keys).field("spent", &self.spent).finish_non_exhaustive()
    }
}

impl Till {
    /// Takes tokens that were made for one of `challenges` under one of `keys`, and remembers them in `spent`.
    pub fn new(challenges: &[Challenge], keys: Vec<IssuerKey>, spent: Spent) -> Self {
        let till = Self {
            challenges: challenges.iter().map(Challenge::digest).collect(),
            keys: RwLock::default(),
            spent,
            clock: SystemTime::now,
        };
        till.set_keys(keys);
        till
    }

    /// Replaces the keys; each is used in its own time only.
    pub fn set_keys(&self, keys: Vec<IssuerKey>) {
        let keys = keys.into_iter().map(|key| (*key.key.id(), Arc::new(key))).collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn check(&self, bytes: &[u8]) -> Result<Spend, Refusal> {
        let token = Token::parse(bytes).map_err(|_| Refusal::Malformed)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.get(token.key_id()).cloned().ok_or(Refusal::UnknownKey)?;
        drop(keys);
        let now = clock::seconds((self.clock)()).map_err(|_| Refusal::UnknownKey)?;
        if !(key.not_before..key.not_after).contains(&now) {
            return Err(Refusal::UnknownKey);
        }
        if !self.challenges.contains(token.challenge_digest()) {
            return Err(Refusal::OtherChallenge);
        }
        if !key.key.verifies(&token) {
            return Err(Refusal::Signature);
        }
        // Not the signature: a client can make several that hold for what was signed once.
        Ok(Spend { id: Sha256::digest(token.input()).into(), epoch_end: key.not_after })
    }
}

impl Redeem for Till {
    fn redeem<'a>(&'a self, token: &'a [u8]) -> Redeeming<'a> {
        Box::pin(async move {
            let spend = self.check(token)?;
            self.spent.spend(spend).await
        })
    }
}
