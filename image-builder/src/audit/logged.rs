//! A rebuilt image against an entry of a log.

use super::Rebuilt;
use super::compare::Comparison;
use crate::publish::difference;
use transparency::entry::{Entry, File, Image, Name, Subject};

/// Why an image cannot be compared with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotComparable {
    /// The entry is about something else.
    #[error("the entry is not about an image")]
    NotAnImage,
    /// The source's builder wrote digests that are none.
    #[error("the rebuilt digests are not as they must be: {0}")]
    Digests(String),
}

/// Compares what was rebuilt with `entry`: name, version, manifest, weights, every launch digest that is logged and every
/// file that a build makes. `commit` is the one that was built, if the source came from one. Files of the entry that no build
/// makes are named beside the comparison.
pub fn compare(
    rebuilt: &Rebuilt,
    entry: &Entry,
    commit: Option<&[u8]>,
) -> Result<(Comparison, Vec<Name>), NotComparable> {
    let Subject::Image(image) = &entry.subject else { return Err(NotComparable::NotAnImage) };
    let Built { files, others } = built(rebuilt, image);
    let mut vcpus: Vec<u32> = image.launches.iter().map(|launch| launch.vcpus).collect();
    vcpus.dedup();
    let commit = commit.unwrap_or(&image.source_commit).to_vec();
    let mut ours = Entry::of_image(&rebuilt.digests, files, &vcpus, entry.role.clone(), commit)
        .map_err(|error| NotComparable::Digests(error.to_string()))?;
    ours.previous = entry.previous;
    let differences = difference::between(&ours, entry);
    let mut comparison = Comparison { identical: differences.is_empty(), ..Comparison::default() };
    comparison.places = differences.len();
    for found in differences {
        comparison.lines.push(format!("-{}: {}", found.field, found.first));
        comparison.lines.push(format!("+{}: {}", found.field, found.second));
    }
    Ok((comparison, others))
}

/// What the entry lists, as it was rebuilt.
struct Built {
    files: Vec<File>,
    others: Vec<Name>,
}

fn built(rebuilt: &Rebuilt, image: &Image) -> Built {
    let mut built = Built { files: Vec::new(), others: Vec::new() };
    for file in &image.files {
        let bytes = match &*file.name {
            "cloister.rom" => &rebuilt.rom[..],
            "cloister.igvm" => &rebuilt.igvm,
            "digests.json" => rebuilt.digests.as_bytes(),
            _ => {
                built.others.push(file.name.clone());
                built.files.push(file.clone());
                continue;
            }
        };
        built.files.push(File::of(file.name.clone(), bytes));
    }
    built
}
