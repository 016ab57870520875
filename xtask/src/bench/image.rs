//! Size of the image.

use super::{Figures, Subject};
use crate::build;
use anyhow::{Context, Result};

/// Bytes of what is measured at launch.
pub const SUBJECT: Subject = Subject { name: "image", about: "size of the image", run };

fn run(figures: &mut Figures<'_>) -> Result<()> {
    let folder = build::target()?.join("bench/image");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    build::image(&folder)?;
    let command = "cargo run -q --release -p image-builder -- build --out out && ls -l out";
    let bytes = std::fs::metadata(folder.join("cloister.rom"))?.len();
    figures.add("cloister.rom", bytes as f64, "bytes", command);
    Ok(())
}
