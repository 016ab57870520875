//! `cloister-relay`: hands encapsulated requests on to gateways. It knows addresses, and nothing of what is asked.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use privacy::relay::{GatewayAt, Limits, Relay};
use privacy::serve::{Listen, run};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const EXAMPLES: &str = "\
Example:
  cloister-relay --config relay.toml

relay.toml:
  [listen]
  address = \"0.0.0.0:443\"
  tls = { certificate = \"relay.pem\", key = \"relay.key\" }

  [[gateway]]                                # clients use https://relay.example/gateway
  path = \"/gateway\"
  url = \"https://gateway.example/\"         # every address that the name resolves to is a gateway
  # addresses = [\"192.0.2.1\", \"192.0.2.2\"]    # in place of those

SIGTERM ends it once the exchanges at work are done, at the latest after --grace seconds.
Exit codes: 0 done, 1 failed, 2 wrong arguments.";

/// An Oblivious HTTP relay (RFC 9458): streams both ways, keeps no address, serves the gateways on its list.
#[derive(Parser)]
#[command(name = "cloister-relay", version, after_help = EXAMPLES)]
struct Arguments {
    /// The configuration; paths in it are relative to it.
    #[arg(long)]
    config: PathBuf,
    /// Seconds that exchanges at work have when the relay is told to end.
    #[arg(long, default_value_t = 30)]
    grace: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    listen: Listen,
    gateway: Vec<GatewayAt>,
    #[serde(default)]
    limits: Limits,
}

fn main() -> ExitCode {
    match relay(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn relay(arguments: &Arguments) -> Result<()> {
    let path = &arguments.config;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Config =
        toml::from_str(&text).with_context(|| format!("{} is not as it must be", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let relay = Arc::new(Relay::new(&config.gateway, folder, config.limits)?);
        let counted = relay.clone();
        let service = move |request| relay.clone().handle(request);
        let grace = Duration::from_secs(arguments.grace);
        run(&config.listen, folder, grace, service, move || counted.metrics()).await?;
        Ok(())
    })
}
