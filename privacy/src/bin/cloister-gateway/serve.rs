//! `cloister-gateway serve`.

use crate::config::{Config, Tokens};
use anyhow::{Context, Result, bail};
use privacy::clock::now;
use privacy::gateway::slices::Slices;
use privacy::gateway::{Gateway, Guests, keys};
use privacy::keys::{Floors, IssuerKey, prove};
use privacy::reload::Reloads;
use privacy::serve::run;
use privacy::token::challenge::Challenge;
use privacy::token::spent::Spent;
use privacy::token::till::Till;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use transparency::entry::Kind;
use transparency::trust::Trust;

/// How often guests are probed.
const PROBE: Duration = Duration::from_secs(5);

pub async fn serve(path: &Path, grace: u64) -> Result<()> {
    let config = Config::load(path)?;
    let keys = keys::load(&config.keys, now()?)?;
    let challenge = Challenge::new(&config.tokens.issuer, &[&config.name])?;
    let issuer = issuer_keys(&config.tokens, config.trust()?).await?;
    let asked = www_authenticate(&challenge, &issuer);
    let spent = Spent::open(&config.tokens.spent).await?;
    let till = Arc::new(Till::new(std::slice::from_ref(&challenge), issuer, spent));
    let mut guests = Guests::new(config.guests.clone());
    if let Some(kubernetes) = &config.kubernetes {
        guests = guests.with_slices(Slices::new(kubernetes)?);
    }
    let guests = Arc::new(guests);
    guests.probe().await;
    let gateway = Arc::new(Gateway::new(keys, till.clone(), asked, guests.clone(), config.limits));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PROBE).await;
            guests.probe().await;
        }
    });
    tokio::spawn(reload(Reloads::new()?, path.to_owned(), gateway.clone(), till, challenge));
    let counted = gateway.clone();
    let service = move |request| gateway.clone().handle(request);
    let folder = path.parent().unwrap_or(Path::new("."));
    run(&config.listen, folder, Duration::from_secs(grace), service, move || counted.metrics()).await?;
    Ok(())
}

/// Reads keys and guests again; what cannot be read stays as it was.
async fn reload(
    mut reloads: Reloads,
    path: PathBuf,
    gateway: Arc<Gateway>,
    till: Arc<Till>,
    challenge: Challenge,
) {
    loop {
        reloads.next().await;
        let again = async {
            let config = Config::load(&path)?;
            gateway.set_keys(keys::load(&config.keys, now()?)?);
            let issuer = issuer_keys(&config.tokens, config.trust()?).await?;
            gateway.set_challenge(www_authenticate(&challenge, &issuer));
            till.set_keys(issuer);
            gateway.set_guests(config.guests);
            anyhow::Ok(())
        };
        if let Err(error) = again.await {
            eprintln!("error: {error:#}; what was read before stays in use");
        }
    }
}

/// What those without a good token are told: the challenge, and the issuer's newest key.
fn www_authenticate(challenge: &Challenge, issuer: &[IssuerKey]) -> String {
    let newest = issuer.iter().max_by_key(|key| key.version);
    newest.map(|key| challenge.www_authenticate(key.key.spki())).unwrap_or_default()
}

/// Every key of the issuer that a mirror proves: the one in use, and that of the epoch before.
async fn issuer_keys(tokens: &Tokens, log: &Trust) -> Result<Vec<IssuerKey>> {
    let mut floors = Floors::load(&tokens.floors)?;
    let (before, no_floors) = (floors.clone(), Floors::default());
    let (mut proven, mut last) = (Vec::new(), None);
    for mirror in &tokens.key_mirrors {
        let text = mirror.fetch().await;
        // An older key is no rollback here: its tokens are good until its own time is over.
        let key = text.and_then(|text| {
            prove(&text, Kind::IssuerKey, &tokens.issuer, log, &no_floors, SystemTime::now())
        });
        match key {
            Ok(key) => proven.push(key),
            Err(error) => last = Some(error),
        }
    }
    proven.sort_by_key(|key| key.version);
    let Some(newest) = proven.last() else {
        match last {
            Some(error) => return Err(error).context("no mirror gives a key of the issuer that can be used"),
            None => bail!("no mirror is configured from which the proof of the issuer's key could come"),
        }
    };
    floors.remember(Kind::IssuerKey, newest);
    if floors != before {
        floors.save(&tokens.floors)?;
    }
    proven.into_iter().map(|key| Ok(IssuerKey::try_from(key)?)).collect()
}
