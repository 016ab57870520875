//! SHA-256 and SHA-384, plain and as HMAC, for transcripts and the key schedule.

use alloc::boxed::Box;
use hmac::{KeyInit, Mac};
use rustls::crypto::{hash, hmac as tls_hmac};
use sha2::Digest;

macro_rules! hash_and_hmac {
    ($hash:ident, $hmac:ident, $digest:ty, $algorithm:ident, $length:literal) => {
        pub(super) struct $hash;

        impl hash::Hash for $hash {
            fn start(&self) -> Box<dyn hash::Context> {
                Box::new(Transcript(<$digest>::new()))
            }

            fn hash(&self, data: &[u8]) -> hash::Output {
                hash::Output::new(&<$digest>::digest(data))
            }

            fn output_len(&self) -> usize {
                $length
            }

            fn algorithm(&self) -> hash::HashAlgorithm {
                hash::HashAlgorithm::$algorithm
            }
        }

        impl hash::Context for Transcript<$digest> {
            fn fork_finish(&self) -> hash::Output {
                hash::Output::new(&self.0.clone().finalize())
            }

            fn fork(&self) -> Box<dyn hash::Context> {
                Box::new(Transcript(self.0.clone()))
            }

            fn finish(self: Box<Self>) -> hash::Output {
                hash::Output::new(&self.0.finalize())
            }

            fn update(&mut self, data: &[u8]) {
                self.0.update(data);
            }
        }

        pub(super) struct $hmac;

        impl tls_hmac::Hmac for $hmac {
            fn with_key(&self, key: &[u8]) -> Box<dyn tls_hmac::Key> {
                let keyed = hmac::Hmac::<$digest>::new_from_slice(key);
                Box::new(Keyed(keyed.expect("HMAC takes keys of any length (RFC 2104)")))
            }

            fn hash_output_len(&self) -> usize {
                $length
            }
        }

        impl tls_hmac::Key for Keyed<hmac::Hmac<$digest>> {
            fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> tls_hmac::Tag {
                let mut mac = self.0.clone();
                mac.update(first);
                for part in middle {
                    mac.update(part);
                }
                mac.update(last);
                tls_hmac::Tag::new(&mac.finalize().into_bytes())
            }

            fn tag_len(&self) -> usize {
                $length
            }
        }
    };
}

struct Transcript<D>(D);
struct Keyed<M>(M);

hash_and_hmac!(Sha256, HmacSha256, sha2::Sha256, SHA256, 32);
hash_and_hmac!(Sha384, HmacSha384, sha2::Sha384, SHA384, 48);
