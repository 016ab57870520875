//! `cloister-image key`, `vouch` and `publish`.

use crate::failure::Failure;
use crate::{args, read, write};
use image_builder::audit::{self, Options, Origin, Rebuilt};
use image_builder::container::Container;
use image_builder::digests::Digests;
use image_builder::publish::{agree, builders::Builders, statement};
use serde_json::json;
use std::fs::File;
use std::path::Path;
use transparency::entry::{self, Entry, Model, Name, Subject};
use transparency::key::{Algorithm, SignerKey};
use transparency::log::Writer;
use transparency::log::config::{Config, read_key, write_key};
use transparency::note::Note;

/// Makes a builder's key.
pub fn key(options: &args::Key) -> Result<(), Failure> {
    println!("{}", write_key(&options.out, &options.name, Algorithm::Ed25519)?.public());
    Ok(())
}

/// Signs what a build came to.
pub fn vouch(options: &args::Vouch) -> Result<(), Failure> {
    let key = read_key(&options.key)?;
    let entry = match (&options.weights, &options.name, options.model_version) {
        (Some(weights), Some(name), Some(version)) => {
            let role = options.role.clone().map_or_else(|| word("weights"), Ok)?;
            Entry { name: name.clone(), role, version, previous: None, subject: model(weights)? }
        }
        _ => image(options)?,
    };
    sign(&entry, &key, &options.out)
}

fn sign(entry: &Entry, key: &SignerKey, out: &Path) -> Result<(), Failure> {
    let note = statement::sign(entry, key)?;
    write(out, note.encode().as_bytes())?;
    eprintln!(
        "{} vouches for {} {} {} ({})",
        key.public().name(),
        entry.kind(),
        entry.name,
        entry.version,
        out.display()
    );
    Ok(())
}

/// A model's entry; its file is hashed, and need not be one that this program could run.
fn model(path: &Path) -> Result<Subject, Failure> {
    let failed = |source| Failure::Read { path: path.into(), source };
    let (weights_root, _) = attestation::weights::root(File::open(path).map_err(failed)?).map_err(failed)?;
    let file = entry::File::of(name_of(path)?, &read(path)?);
    Ok(Subject::Model(Model { weights_root, files: vec![file] }))
}

fn image(options: &args::Vouch) -> Result<Entry, Failure> {
    let revision = options.commit.clone().unwrap_or_default();
    let (rebuilt, commit) = match &options.built {
        Some(folder) => {
            let commit = hex::decode(&revision).map_err(|_| Failure::Commit(revision))?;
            (built(folder)?, commit)
        }
        None => {
            let origin = Origin::Commit { repository: options.repository.clone(), revision };
            let commit = origin.commit()?.unwrap_or_default();
            let (vendor, manifest) = (options.vendor.clone(), options.manifest.clone());
            (audit::rebuild(&Options { origin, vendor, work: None, manifest })?, commit)
        }
    };
    let file = |name, bytes: &[u8]| Ok::<_, Failure>(entry::File::of(word(name)?, bytes));
    let files = vec![file("cloister.rom", &rebuilt.rom)?, file("cloister.igvm", &rebuilt.igvm)?];
    let role = options.role.clone().map_or_else(|| word("guest"), Ok)?;
    Entry::of_image(&rebuilt.digests, files, &options.vcpus, role, commit)
        .map_err(|error| Failure::Together(error.to_string()))
}

/// What `cloister-image build` wrote into a folder, if its files belong together.
fn built(folder: &Path) -> Result<Rebuilt, Failure> {
    let (rom, igvm) = (read(&folder.join("cloister.rom"))?, read(&folder.join("cloister.igvm"))?);
    let digests = String::from_utf8_lossy(&read(&folder.join("digests.json"))?).into_owned();
    let failed = |source| Failure::Image { path: folder.into(), source };
    let manifest = Container::parse(&rom).and_then(|image| image.manifest()).map_err(failed)?;
    let listed: serde_json::Value = serde_json::from_str(&digests).unwrap_or_default();
    let weights = listed["weights_file"].as_str().unwrap_or_default();
    if Digests::of(&rom, &igvm, &manifest, weights).map_err(failed)?.to_json() != digests {
        return Err(Failure::Together("digests.json is not that of the images beside it".into()));
    }
    Ok(Rebuilt { rom, igvm, digests, kernel: Vec::new() })
}

/// Reads a `builders.toml`.
pub fn builders(path: &Path) -> Result<Builders, Failure> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    Builders::parse(&text)
        .map_err(|error| Failure::Settings { path: path.into(), problem: error.to_string() })
}

/// Appends what builders agree on.
pub fn publish(options: &args::Publish) -> Result<(), Failure> {
    let builders = builders(&options.builders)?;
    let notes = options
        .statements
        .iter()
        .map(|path| Note::parse(&read(path)?).map_err(|source| Failure::Note { path: path.clone(), source }));
    let agreed = agree::agree(&notes.collect::<Result<Vec<_>, Failure>>()?, &builders)?;
    for path in &options.files {
        let (Subject::Image(entry::Image { files, .. }) | Subject::Model(Model { files, .. })) =
            &agreed.entry.subject
        else {
            return Err(Failure::OtherFile(path.clone()));
        };
        if !files.contains(&entry::File::of(name_of(path)?, &read(path)?)) {
            return Err(Failure::OtherFile(path.clone()));
        }
    }
    let entry = &agreed.entry;
    let (what, who) =
        (format!("{} {} {}", entry.kind(), entry.name, entry.version), agreed.builders.join(", "));
    let Some(config) = &options.config else {
        if options.json {
            println!("{}", json!({ "builders": agreed.builders, "entry": entry }));
        } else {
            println!("{who} agree on {what}");
        }
        return Ok(());
    };
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Runtime)?;
    let (signed, size) = runtime.block_on(append(config, entry.clone(), &agreed.statements))?;
    let leaf = hex::encode(signed.leaf);
    if options.json {
        println!(
            "{}",
            json!({ "builders": agreed.builders, "entry": entry, "index": signed.index, "leaf": leaf, "size": size })
        );
    } else {
        println!("{who} agree on {what}\nappended {} {leaf}\npublished {size}", signed.index);
    }
    Ok(())
}

async fn append(
    config: &Path,
    entry: Entry,
    statements: &Note,
) -> Result<(transparency::log::Signed, u64), Failure> {
    let mut writer = Writer::open(Config::load(config)?).await?;
    let signed = writer.append_vouched(entry, statements).await?;
    let signed = *signed.first().ok_or_else(|| Failure::Together("nothing was appended".into()))?;
    for failure in writer.publish().await? {
        eprintln!("note: {failure}");
    }
    Ok((signed, writer.checkpoint().size))
}

fn name_of(path: &Path) -> Result<Name, Failure> {
    word(path.file_name().and_then(|name| name.to_str()).unwrap_or_default())
        .map_err(|_| Failure::FileName(path.into()))
}

fn word(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|_| Failure::FileName(text.into()))
}
