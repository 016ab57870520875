//! `cloister-gateway serve`.

use crate::config::{Config, Tokens};
use crate::now;
use anyhow::{Context, Result, bail};
use privacy::gateway::slices::Slices;
use privacy::gateway::{Gateway, Guests, keys};
use privacy::keys::{Floors, IssuerKey, prove};
use privacy::serve::run;
use privacy::token::challenge::Challenge;
use privacy::token::spent::Spent;
use privacy::token::till::Till;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use transparency::entry::Kind;
use transparency::trust::Trust;

/// How often guests are probed.
const PROBE: Duration = Duration::from_secs(5);
/// How often keys and the list of guests are read again.
const RELOAD: Duration = Duration::from_secs(60);

pub async fn serve(path: &Path, grace: u64) -> Result<()> {
    let config = Config::load(path)?;
    let keys = keys::load(&config.keys, now()?)?;
    let challenge = Challenge::new(&config.tokens.issuer, &[&config.name])?;
    let issuer = issuer_keys(&config.tokens, config.trust()?).await?;
    let newest = issuer.iter().max_by_key(|key| key.not_before).context("the issuer has no key")?;
    let asked = challenge.www_authenticate(newest.key.spki());
    let spent = Spent::open(&config.tokens.spent).await?;
    let till = Arc::new(Till::new(&[challenge], issuer, spent));
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
    let hangup = signal(SignalKind::hangup())?;
    tokio::spawn(reload(path.to_owned(), gateway.clone(), till, hangup));
    let counted = gateway.clone();
    let service = move |request| gateway.clone().handle(request);
    let folder = path.parent().unwrap_or(Path::new("."));
    run(&config.listen, folder, Duration::from_secs(grace), service, move || counted.metrics()).await?;
    Ok(())
}

/// Reads keys and guests again from time to time, and at SIGHUP; what cannot be read stays as it was.
async fn reload(path: PathBuf, gateway: Arc<Gateway>, till: Arc<Till>, mut hangup: Signal) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RELOAD) => {}
            _ = hangup.recv() => {}
        }
        let again = async {
            let config = Config::load(&path)?;
            gateway.set_keys(keys::load(&config.keys, now()?)?);
            till.set_keys(issuer_keys(&config.tokens, config.trust()?).await?);
            gateway.set_guests(config.guests);
            anyhow::Ok(())
        };
        if let Err(error) = again.await {
            eprintln!("error: {error:#}; what was read before stays in use");
        }
    }
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
