//! Where the source of an image comes from, and how it gets into a clean folder.

use super::{AuditError, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is no source in the root of a folder that was worked in.
const NOT_SOURCES: [&str; 3] = ["target", "out", ".git"];

/// Where the source comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A commit, tag or branch of a git repository.
    Commit {
        /// The repository, or any folder in it.
        repository: PathBuf,
        /// What git calls a tree-ish.
        revision: String,
    },
    /// A tar archive, compressed or not, with the source at its root or in its only folder.
    Archive(PathBuf),
    /// A folder as it is, what is built in it left out.
    Folder(PathBuf),
}

impl Origin {
    /// The commit that is built, as bytes, if the source comes from one.
    ///
    /// # Errors
    /// If git does not know it.
    pub fn commit(&self) -> Result<Option<Vec<u8>>, AuditError> {
        let Self::Commit { repository, revision } = self else { return Ok(None) };
        let mut git = Command::new("git");
        git.arg("-C").arg(repository).args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        git.arg(format!("{revision}^{{commit}}"));
        let failed =
            |detail: String| AuditError::Unpack { command: format!("git rev-parse {revision}"), detail };
        let output = git.output().map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match hex::decode(text.trim_ascii()) {
            Ok(commit) if output.status.success() => Ok(Some(commit)),
            _ => Err(failed(format!("{} has no such commit", repository.display()))),
        }
    }

    /// Unpacks the source into `to`, which does not exist; the folder with its root.
    pub(super) fn unpack(&self, to: &Path) -> Result<PathBuf, AuditError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| AuditError::File { path, source }
        };
        fs::create_dir_all(to).map_err(failed(to))?;
        match self {
            Self::Commit { repository, revision } => {
                let archive = to.with_extension("tar");
                let mut git = Command::new("git");
                git.arg("-C").arg(repository).args(["archive", "--format=tar", "--output"]).arg(&archive);
                run({
                    // A revision that begins with a dash is no option.
                    git.arg("--end-of-options").arg(revision);
                    git
                })?;
                extract(&archive, to)?;
                fs::remove_file(&archive).map_err(failed(&archive))?;
            }
            Self::Archive(archive) => extract(archive, to)?,
            Self::Folder(folder) => copy(folder, to, &NOT_SOURCES)?,
        }
        root_of(to).map_err(failed(to))
    }
}

fn extract(archive: &Path, to: &Path) -> Result<(), AuditError> {
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--no-same-owner").arg("--file").arg(archive).arg("--directory").arg(to);
    run(tar)
}

/// `folder`, or the only folder in it, as archives of releases have one.
fn root_of(folder: &Path) -> std::io::Result<PathBuf> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(match &entries[..] {
        [only] if only.path().is_dir() => only.path(),
        _ => folder.to_path_buf(),
    })
}

fn copy(from: &Path, to: &Path, left_out: &[&str]) -> Result<(), AuditError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| AuditError::File { path, source }
    };
    fs::create_dir_all(to).map_err(failed(to))?;
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let (name, path) = (entry.file_name(), entry.path());
        if left_out.iter().any(|other| name == *other) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(&name), &[])?;
        } else {
            fs::copy(&path, to.join(&name)).map_err(failed(&path))?;
        }
    }
    Ok(())
}
