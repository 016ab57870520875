//! The report in the forms that other people's tools read: a CycloneDX bill of materials and SLSA provenance.
//!
//! Both are made of what was measured here and nothing else: no time, no name of a machine, so that two builders who agree
//! write the same bytes.

use super::{BuildPackage, Crate, Report};
use attestation::manifest::Manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha384};

/// Which source an image was built from, and by whom.
#[derive(Clone, Debug)]
pub struct Build {
    /// Where the source is published, as a URI such as `git+https://…`.
    pub repository: String,
    /// The commit, in hexadecimal.
    pub commit: String,
    /// URI of whoever vouches for the build.
    pub builder: String,
    /// Version of the Rust compiler.
    pub rust: String,
    /// Commit of the Rust compiler, in hexadecimal.
    pub rust_commit: String,
}

/// How the image is built from its parameters; `type` of the provenance. Its meaning is docs/AUDITORS.md, "Rebuild".
const BUILD_TYPE: &str = "urn:cloister:image-build:1";

/// A file that was built.
pub struct Artifact<'a> {
    /// Its name, without a folder.
    pub name: &'a str,
    /// Its contents.
    pub bytes: &'a [u8],
}

fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{version}")
}

/// SPDX, of which older crates' `A/B` is no expression.
fn spdx(licence: &str) -> String {
    licence.replace('/', " OR ")
}

/// The image's bill of materials, CycloneDX 1.6 (ECMA-424). What runs only while building is of scope `excluded`.
pub fn cyclonedx(report: &Report, manifest: &Manifest, rom: &[u8]) -> Value {
    let image = format!("pkg:generic/{}@{}", manifest.image, manifest.version);
    let library = |name: &str, version: &str, licence: &str, sha256: &Option<String>, scope: &str| {
        let hashes: Vec<Value> =
            sha256.iter().map(|hash| json!({ "alg": "SHA-256", "content": hash })).collect();
        json!({
            "type": "library", "bom-ref": purl(name, version), "name": name, "version": version, "scope": scope,
            "purl": purl(name, version), "licenses": [{ "expression": spdx(licence) }], "hashes": hashes,
        })
    };
    let linked = |part: &Crate| {
        let mut entry = library(&part.name, &part.version, &part.licence, &part.sha256, "required");
        entry["description"] = part.why.clone().into();
        entry
    };
    let building =
        |part: &BuildPackage| library(&part.name, &part.version, &part.licence, &part.sha256, "excluded");
    let weights = json!({
        "type": "machine-learning-model", "bom-ref": "weights", "name": manifest.model.name, "scope": "required",
        "properties": [{ "name": "cloister:weights-root", "value": hex::encode(manifest.model.weights_root) }],
    });
    let components: Vec<Value> = report
        .crates
        .iter()
        .map(linked)
        .chain(report.build_packages.iter().map(building))
        .chain([weights])
        .collect();
    let edges = report.crates.iter().map(|part| {
        let uses: Vec<String> = part.uses.iter().map(|(name, version)| purl(name, version)).collect();
        json!({ "ref": purl(&part.name, &part.version), "dependsOn": uses })
    });
    let root = report.crates.iter().find(|part| part.name == "kernel");
    let root: Option<String> = root.map(|part| purl(&part.name, &part.version));
    let parts: Vec<String> = root.into_iter().chain(["weights".to_owned()]).collect();
    let top = json!({ "ref": image, "dependsOn": parts });
    let edges: Vec<Value> = [top].into_iter().chain(edges).collect();
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {
            "component": {
                "type": "firmware", "bom-ref": image, "name": manifest.image, "version": manifest.version,
                "hashes": [{ "alg": "SHA-384", "content": hex::encode(Sha384::digest(rom)) }],
            },
        },
        "components": components,
        "dependencies": edges,
    })
}

/// The build's provenance: an in-toto Statement v1 with a SLSA v1 predicate (<https://slsa.dev/spec/v1.0/provenance>).
pub fn provenance(report: &Report, artifacts: &[Artifact], build: &Build) -> Value {
    let subject: Vec<Value> = artifacts.iter().map(|artifact| {
        let digest = json!({
            "sha256": hex::encode(Sha256::digest(artifact.bytes)), "sha384": hex::encode(Sha384::digest(artifact.bytes)),
        });
        json!({ "name": artifact.name, "digest": digest })
    }).collect();
    let source = json!({ "uri": build.repository, "digest": { "gitCommit": build.commit } });
    let compiler = json!({
        "name": "rustc", "uri": "git+https://github.com/rust-lang/rust", "digest": { "gitCommit": build.rust_commit },
        "annotations": { "version": build.rust },
    });
    let crates = report.crates.iter().map(|part| (&part.name, &part.version, &part.sha256));
    let building = report.build_packages.iter().map(|part| (&part.name, &part.version, &part.sha256));
    let packages = crates.chain(building).filter_map(|(name, version, sha256)| {
        Some(json!({ "uri": purl(name, version), "digest": { "sha256": sha256.as_ref()? } }))
    });
    let dependencies: Vec<Value> = [source.clone(), compiler].into_iter().chain(packages).collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "source": source, "manifest": "models/manifest.toml" },
                "internalParameters": { "rust": build.rust, "profile": "freestanding" },
                "resolvedDependencies": dependencies,
            },
            "runDetails": { "builder": { "id": build.builder } },
        },
    })
}
