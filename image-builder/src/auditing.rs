//! `cloister-image audit`.

use crate::failure::Failure;
use crate::{args, read};
use image_builder::audit::{self, Options, Origin, Rebuilt, compare};
use serde_json::json;
use std::path::Path;
#[cfg(feature = "publish")]
use {
    image_builder::audit::logged,
    image_builder::publish::{agree, difference},
    serde::Deserialize,
    std::time::SystemTime,
    transparency::entry::{Entry, Kind, Subject},
    transparency::log::reader::{ReadError, Reader},
    transparency::log::store::Store,
    transparency::trust::Trust,
    transparency::verify::{Logged, verify},
};

/// Something that was published, as it is compared.
enum Published {
    /// An image, or its digests.
    File(Vec<u8>),
    /// What a log says.
    #[cfg(feature = "publish")]
    Entry { entry: Box<Entry>, builders: Vec<String> },
}

impl Published {
    /// Who vouched for it, as far as that was asked.
    fn builders(&self) -> &[String] {
        match self {
            Self::File(_) => &[],
            #[cfg(feature = "publish")]
            Self::Entry { builders, .. } => builders,
        }
    }
}

/// Rebuilds an image once and compares it with everything that was published of it.
pub fn audit(options: &args::Audit) -> Result<(), Failure> {
    let published = options.published.iter().map(|path| load(options, path));
    let published = published.collect::<Result<Vec<_>, Failure>>()?;
    let origin = named(options).or_else(|| logged_origin(options, &published)).ok_or(Failure::NoOrigin)?;
    let commit = origin.commit()?;
    let (vendor, work, manifest) = (options.vendor.clone(), options.work.clone(), options.manifest.clone());
    let rebuilt = audit::rebuild(&Options { origin, vendor, work, manifest })?;

    let mut different = None;
    let mut results = Vec::new();
    for (path, published) in options.published.iter().zip(&published) {
        let comparison = comparison(&rebuilt, published, commit.as_deref())?;
        let builders = published.builders();
        if !comparison.identical {
            different = different.or_else(|| Some(path.clone()));
        }
        if options.json {
            results.push(json!({ "file": path, "comparison": comparison, "builders": builders }));
        } else if options.published.len() > 1 {
            print!("{}: {comparison}", path.display());
        } else {
            print!("{comparison}");
        }
        if !options.json && !builders.is_empty() {
            println!("vouched for by {}", builders.join(", "));
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&results).unwrap_or_default());
    }
    different.map_or(Ok(()), |path| Err(Failure::Different(path)))
}

/// The source that the command line names.
fn named(options: &args::Audit) -> Option<Origin> {
    match (&options.commit, &options.archive, &options.folder) {
        (Some(revision), ..) => {
            Some(Origin::Commit { repository: options.repository.clone(), revision: revision.clone() })
        }
        (_, Some(archive), _) => Some(Origin::Archive(archive.clone())),
        (.., folder) => Some(Origin::Folder(folder.clone()?)),
    }
}

#[cfg(not(feature = "publish"))]
fn load(_: &args::Audit, path: &Path) -> Result<Published, Failure> {
    read(path).map(Published::File)
}

#[cfg(not(feature = "publish"))]
fn logged_origin(_: &args::Audit, _: &[Published]) -> Option<Origin> {
    None
}

/// Reads what was published; the proof of a log entry is checked.
#[cfg(feature = "publish")]
fn load(options: &args::Audit, path: &Path) -> Result<Published, Failure> {
    /// How a file begins that holds the proof of an entry (C2SP tlog-proof).
    const PROOF: &[u8] = b"c2sp.org/tlog-proof@";
    /// A file with a `[log]` section; the rest of it is somebody else's.
    #[derive(Deserialize)]
    struct WithLog {
        log: Trust,
    }
    let bytes = read(path)?;
    if !bytes.starts_with(PROOF) {
        return Ok(Published::File(bytes));
    }
    let path = options.trust.as_ref().ok_or(Failure::NoTrust)?;
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let trust: WithLog = toml::from_str(&text)
        .map_err(|error| Failure::Settings { path: path.clone(), problem: error.to_string() })?;
    let logged = verify(&bytes, Kind::Image, &trust.log, SystemTime::now())?;
    let builders = match (&options.log, &options.builders) {
        (Some(log), Some(builders)) => vouched(log, builders, &logged)?,
        _ => Vec::new(),
    };
    Ok(Published::Entry { entry: Box::new(logged.entry), builders })
}

/// Names of the builders whose statements about an entry the log keeps; all of them count and signed this entry.
#[cfg(feature = "publish")]
fn vouched(log: &str, builders: &Path, logged: &Logged) -> Result<Vec<String>, Failure> {
    let builders = crate::publishing::builders(builders)?;
    let reader = if log.contains("://") {
        Reader::http(log)?
    } else {
        let folder = Path::new(log);
        std::fs::read_dir(folder).map_err(|source| Failure::Read { path: folder.into(), source })?;
        Reader::Store(Store::folder(folder).map_err(ReadError::from)?)
    };
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Runtime)?;
    let note = runtime.block_on(reader.statements(&logged.leaf))?.ok_or(Failure::NotVouched)?;
    let agreed = agree::agree(&[note], &builders)?;
    // Which entry was before it, the log says and not the builders.
    let entry = Entry { previous: None, ..logged.entry.clone() };
    match difference::between(&agreed.entry, &entry).into_iter().next() {
        None => Ok(agreed.builders),
        Some(difference) => Err(Failure::OtherEntry(difference)),
    }
}

/// The commit that an entry names.
#[cfg(feature = "publish")]
fn logged_origin(options: &args::Audit, published: &[Published]) -> Option<Origin> {
    published.iter().find_map(|published| match published {
        Published::Entry { entry, .. } => match &entry.subject {
            Subject::Image(image) => {
                let revision = hex::encode(&image.source_commit);
                Some(Origin::Commit { repository: options.repository.clone(), revision })
            }
            _ => None,
        },
        Published::File(_) => None,
    })
}

fn comparison(
    rebuilt: &Rebuilt,
    published: &Published,
    #[cfg_attr(not(feature = "publish"), allow(unused_variables))] commit: Option<&[u8]>,
) -> Result<compare::Comparison, Failure> {
    match published {
        // Digests are compared where the image is not at hand; they cannot say where it differs.
        Published::File(bytes) if bytes.trim_ascii_start().starts_with(b"{") => {
            Ok(compare::texts(&rebuilt.digests, &String::from_utf8_lossy(bytes)))
        }
        Published::File(bytes) => Ok(rebuilt.compare(bytes)),
        #[cfg(feature = "publish")]
        Published::Entry { entry, .. } => {
            if commit.is_none() {
                eprintln!(
                    "note: a folder or an archive does not say which commit it is, so that is not compared"
                );
            }
            let (comparison, others) = logged::compare(rebuilt, entry, commit)?;
            for name in others {
                eprintln!("note: no build makes {name}, so it is not compared");
            }
            Ok(comparison)
        }
    }
}
