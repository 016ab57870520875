//! What cargo compiled for the image: crates, their features, and the source files that the compiler read.

use super::TcbError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One crate that was compiled.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// cargo's package id.
    pub package: String,
    /// The crate's name, as paths in code begin with it.
    pub crate_name: String,
    /// Whether it runs while building (a build script or a procedural macro) and is not itself in the image.
    pub builds: bool,
    /// Features that are on.
    pub features: Vec<String>,
    /// `cfg` options that its build script set.
    pub cfgs: Vec<String>,
    /// The source files that the compiler read, generated ones included.
    pub sources: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        target: Target,
        features: Vec<String>,
        filenames: Vec<PathBuf>,
    },
    BuildScriptExecuted {
        package_id: String,
        cfgs: Vec<String>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

/// The crates in `messages`, cargo's own account of a build for `target` in the folder `root`.
pub fn read(messages: &str, root: &Path, target: &str) -> Result<Vec<Artifact>, TcbError> {
    let mut artifacts = Vec::new();
    let mut cfgs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in messages.lines() {
        match serde_json::from_str(line).map_err(|error| TcbError::Cargo(error.to_string()))? {
            Message::CompilerArtifact { package_id, target: compiled, features, filenames } => {
                let builds = compiled.kind.iter().any(|kind| kind == "proc-macro" || kind == "custom-build")
                    || !filenames.iter().any(|file| file.iter().any(|part| part == target));
                let sources = if builds { Vec::new() } else { sources(&compiled.name, &filenames, root)? };
                artifacts.push(Artifact {
                    package: package_id,
                    crate_name: compiled.name.replace('-', "_"),
                    builds,
                    features,
                    cfgs: Vec::new(),
                    sources,
                });
            }
            Message::BuildScriptExecuted { package_id, cfgs: set } => {
                cfgs.entry(package_id).or_default().extend(set);
            }
            Message::Other => {}
        }
    }
    for artifact in &mut artifacts {
        artifact.cfgs = cfgs.get(&artifact.package).cloned().unwrap_or_default();
    }
    Ok(artifacts)
}

/// The files that the compiler's dependency file lists, which lies beside the library or, for the program itself, in the
/// `deps` folder.
fn sources(name: &str, filenames: &[PathBuf], root: &Path) -> Result<Vec<PathBuf>, TcbError> {
    let no_list = || TcbError::Cargo(format!("there is no dependency file for `{name}`"));
    let file = filenames.first().ok_or_else(no_list)?;
    let stem = file.file_stem().and_then(|stem| stem.to_str()).ok_or_else(no_list)?;
    let list = match stem.strip_prefix("lib") {
        Some(stem) if file.extension().is_some() => file.with_file_name(format!("{stem}.d")),
        _ => of_program(file, &format!("{}-", name.replace('-', "_"))).ok_or_else(no_list)?,
    };
    let text = fs::read_to_string(&list).map_err(|source| TcbError::Read { path: list, source })?;
    // `output: source source …`, one line for each output; the sources are the same on all.
    let line = text.lines().next().and_then(|line| line.split_once(": ")).ok_or_else(no_list)?.1;
    let marked = line.replace("\\ ", "\0");
    Ok(marked
        .split(' ')
        .filter(|path| !path.is_empty())
        .map(|path| root.join(path.replace('\0', " ")))
        .collect())
}

/// The dependency file of the program at `executable`: cargo links a program from the `deps` folder, where its dependency file
/// lies beside it. Where it had to copy instead, the newest is the one.
fn of_program(executable: &Path, prefix: &str) -> Option<PathBuf> {
    let inode = fs::metadata(executable).ok()?.ino();
    let files = fs::read_dir(executable.with_file_name("deps")).ok()?.filter_map(Result::ok);
    let lists = files.filter(|file| {
        let name = file.file_name();
        name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(".d"))
    });
    let newest = lists.max_by_key(|file| {
        let program = file.path().with_extension("");
        let linked = fs::metadata(program).is_ok_and(|data| data.ino() == inode);
        (linked, file.metadata().and_then(|data| data.modified()).ok())
    })?;
    Some(newest.path())
}
