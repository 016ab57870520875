//! The advisories that dependencies are held against: a snapshot of the RustSec database that is in git, so that the check says
//! the same on a machine that reaches nothing but a registry of crates, and every change of it is seen in a review.
//!
//! Of each advisory there is what a program compares (its TOML part) and its title. All of them are kept, not only those about
//! today's crates: a dependency that is added tomorrow is compared as well.

use crate::build::{root, run};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The snapshot.
const SNAPSHOT: &str = "xtask/data/advisories.txt";
/// Where it comes from.
const SOURCE: &str = "https://github.com/rustsec/advisory-db";
/// What cargo-deny calls the folder of a database with that address.
const FOLDER: &str = "advisory-db-3157b0e258782691";
/// Before each advisory, on a line of its own with its path in the database.
const MARK: &str = "\n=== ";
/// Fewest advisories of a database that is whole: half of what there were in 2026.
const LEAST: usize = 600;

/// From where to refresh the snapshot.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask advisories\n  cargo xtask advisories --from ../advisory-db\n\nNeeds git, and the network without --from. Look at the difference before you commit it."
)]
pub struct Options {
    /// A clone of the database, instead of a new one from GitHub.
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
}

/// Refreshes the snapshot from the newest commit of the database.
pub fn refresh(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let database = match &options.from {
        Some(path) => path.clone(),
        None => {
            let clone = folder.path().join("database");
            run(Command::new("git").args(["clone", "--quiet", "--depth", "1", SOURCE]).arg(&clone))
                .context("the database cannot be fetched; give a clone of it with --from")?;
            clone
        }
    };
    let git = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("git").arg("-C").arg(&database).args(arguments).output()?;
        ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let archive = folder.path().join("crates.tar");
    git(&["archive", "--output", archive.to_str().context("the path is not UTF-8")?, "HEAD", "crates"])?;
    run(Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(&archive))?;
    let mut text = format!(
        "# RustSec advisory database, of each advisory its TOML part and its title. `cargo xtask advisories` writes this file.\n\
         # source: {SOURCE}\n# commit: {}# date: {}\
         # licence: CC0-1.0, but where an advisory states another one (CC-BY-4.0, from the GitHub Advisory Database)\n",
        git(&["rev-parse", "HEAD"])?,
        git(&["log", "-1", "--format=%cs"])?
    );
    let mut count = 0;
    for name in sorted(&folder.path().join("crates"))? {
        for path in sorted(&name)?.iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
            let shown = path.strip_prefix(folder.path())?.display().to_string();
            let advisory = fs::read_to_string(path)?;
            text += &format!("{MARK}{shown}\n{}", reduced(&advisory).with_context(|| shown.clone())?);
            count += 1;
        }
    }
    ensure!(count >= LEAST, "this database has only {count} advisories; is it a whole one?");
    fs::write(root().join(SNAPSHOT), text + "\n")?;
    println!("{SNAPSHOT}: {count} advisories");
    Ok(())
}

/// The TOML part and the title.
fn reduced(advisory: &str) -> Result<String> {
    const END: &str = "\n```\n";
    let end = advisory.find(END).filter(|_| advisory.starts_with("```toml\n"));
    let (front, rest) = advisory.split_at(end.context("not an advisory")? + END.len());
    let title = rest.lines().find(|line| !line.is_empty()).unwrap_or_default();
    Ok(format!("{front}\n# {}", title.trim_start_matches(['#', ' '])))
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    paths.sort();
    Ok(paths)
}

/// The snapshot as cargo-deny wants a database, below `folder`, which is made anew; with more advisories, each a path and a
/// text, for a test. Gives the date of the snapshot.
pub fn lay_out(folder: &Path, more: &[(&str, &str)]) -> Result<String> {
    let text = fs::read_to_string(root().join(SNAPSHOT)).with_context(|| SNAPSHOT.to_owned())?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let database = folder.join(FOLDER);
    let mut parts = text.split(MARK);
    let head = parts.next().unwrap_or_default();
    let date =
        head.lines().find_map(|line| line.strip_prefix("# date: ")).context("the snapshot has no date")?;
    let mut count = 0;
    for (path, advisory) in parts.filter_map(|part| part.split_once('\n')).chain(more.iter().copied()) {
        let plain = Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let path = database.join(path);
        let Some(parent) = path.parent().filter(|_| plain) else { bail!("{path:?} in {SNAPSHOT}") };
        fs::create_dir_all(parent)?;
        fs::write(&path, format!("{advisory}\n"))?;
        count += 1;
    }
    ensure!(count >= LEAST, "{SNAPSHOT} has only {count} advisories");
    // cargo-deny reads a database out of git's newest commit.
    let git = |arguments: &[&str]| {
        let settings = [
            "-c",
            "user.name=advisories",
            "-c",
            "user.email=advisories@localhost",
            "-c",
            "core.hooksPath=/dev/null",
        ];
        run(Command::new("git").arg("-C").arg(&database).args(settings).args(arguments))
    };
    git(&["init", "--quiet"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--no-gpg-sign", "--message", date])?;
    Ok(date.to_owned())
}
