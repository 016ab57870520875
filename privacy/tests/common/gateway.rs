//! What a gateway's program is given.

use super::log::name;
use privacy::gateway::keys::{self, KemName};
use privacy::issuer::signing::SigningKey;
use privacy::ohttp::KeyConfig;
use privacy::token::key::TokenKey;
use privacy::token::request::Pending;
use privacy::token::structure::{Token, TokenRequest};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use transparency::trust::Trust;

/// Tokens of a request to the issuer.
const BATCH: usize = 32;

/// Writes `gateway.toml` and what it names, with a key for this KEM, which is given back. Proofs of the issuer's keys are
/// expected in the files `mirrors`. `listen` is what `[listen]` has.
pub fn write(
    folder: &Path,
    trust: &Trust,
    guest: &str,
    kem: KemName,
    store: &str,
    mirrors: &[&str],
    listen: &str,
) -> KeyConfig {
    keys::make(&folder.join("keys"), &name("gateway.example"), kem, 7, super::now()).unwrap();
    let keys = keys::load(&folder.join("keys"), super::now()).unwrap();
    let trust = toml::to_string(trust.file()).unwrap().replace("[[", "[[log.");
    let config = format!(
        "name = \"gateway.example\"\nkeys = \"keys\"\nguests = [\"{guest}\"]\n\n[listen]\n{listen}\n\n[tokens]\n\
         issuer = \"issuer.example\"\nkey_mirrors = {mirrors:?}\nfloors = \"floors\"\nspent = \"{store}\"\n\n[log]\n{trust}"
    );
    fs::write(folder.join("gateway.toml"), config).unwrap();
    keys[0].config().clone()
}

/// Tokens for that gateway, as the issuer would give them; made on all cores.
pub fn tokens(issuer: &SigningKey, count: usize) -> Vec<Token> {
    let public = Arc::new(TokenKey::parse(issuer.public().spki()).unwrap());
    let batch = || {
        let pending = Pending::new(public.clone(), &super::challenge(), BATCH).unwrap();
        let sign = |request: &TokenRequest| issuer.sign(&request.blinded).ok();
        let signatures: Vec<_> = pending.requests().iter().map(sign).collect();
        pending.finish(&signatures).unwrap()
    };
    let cores = std::thread::available_parallelism().unwrap().get();
    let batches = count.div_ceil(BATCH * cores);
    let work = || (0..batches).flat_map(|_| batch()).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).take(count).collect()
    })
}
