//! Serves the service over TCP on this host, for people who write clients and do not want to start a machine.
//!
//!     cargo run -p service --example host -- 127.0.0.1:8443 target/host-example [MODEL.gguf]
//!
//! Writes `policy.toml` and the development root for `cloister --policy` into the folder. Without a model file it
//! serves a tiny one that always gives the same answer. It protects nothing: there is no confidential machine, and
//! the evidence is signed by a development chain.
#[path = "../tests/support/mod.rs"]
mod support;

use inference::{Model, SingleThread};
use service::Service;
use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::rc::Rc;
use support::model::{self, Ending};
use support::platform::{CHAIN, Controls, FakePlatform, policy_toml};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, folder, file) = match arguments.as_slice() {
        [address, folder] => (address, Path::new(folder), None),
        [address, folder, file] => (address, Path::new(folder), Some(file)),
        _ => return Err("usage: host ADDRESS:PORT FOLDER [MODEL.gguf]".into()),
    };
    let weights = match file {
        Some(file) => std::fs::read(file)?,
        None => model::gguf(Ending::Stops),
    };
    let model: &'static Model<'static> = Box::leak(Box::new(Model::load(Vec::leak(weights))?));
    let manifest = match file {
        Some(_) => {
            model::chatml_manifest(model.tokenizer()).ok_or("the model has no ChatML control tokens")?
        }
        None => model::manifest(),
    };
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("development-root.pem"), CHAIN.ark_pem()?)?;
    std::fs::write(folder.join("policy.toml"), policy_toml(&manifest, "development-root.pem"))?;

    let mut platform = FakePlatform::new(Rc::new(Controls::default()));
    platform.real_clock = true;
    platform.prints_events = true;
    let mut service = Service::new(platform, manifest, model, SingleThread)
        .map_err(|error| format!("the service cannot start: {error:?}"))?;
    let listener = TcpListener::bind(address)?;
    println!("serving on {}; policy in {}", listener.local_addr()?, folder.join("policy.toml").display());
    support::tcp::serve(&mut service, &listener, || false);
    Ok(())
}
