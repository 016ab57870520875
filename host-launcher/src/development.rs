//! The keys of the SNP model's AMD-SP: a development chain that is made once and kept.
//!
//! Clients must be given its root explicitly. Keeping it spares them a new root at every start.

use crate::failure::Failure;
use crate::hostile;
use attestation::certificate_table;
use attestation::development::{Chain, DevelopmentError, Endorsement};
use attestation::report::Product;
use image_builder::checkout::Checkout;
use image_builder::cpu::CpuType;
use snp_model::bundle::{Bundle, MAX_CERTIFICATE_BYTES, TcbVersions, VcekScalar};
use snp_model::cpu_type::CpuSignature;
use snp_model::hostile::Lie;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs};

/// A development chain and where it is kept.
pub struct Development {
    chain: Chain,
    folder: PathBuf,
}

impl Development {
    /// Reads the chain in `state`, or makes one there. `state` is by default the checkout's target folder, or the
    /// user's own state folder (XDG Base Directory Specification).
    pub fn open(state: Option<&Path>, cpu: CpuType) -> Result<Self, Failure> {
        let folder = state.map_or_else(default_state, Path::to_path_buf).join("dev-chain");
        let failed = |error: DevelopmentError| Failure::Development {
            path: folder.clone(),
            reason: error.to_string(),
        };
        if !folder.exists() {
            make(&folder).map_err(failed)?;
        }
        let chain =
            Chain::load(&folder).and_then(|chain| for_product(chain, product(cpu))).map_err(failed)?;
        Ok(Self { chain, folder })
    }

    /// The file with the root's certificate, which a client's policy must name.
    pub fn root_pem(&self) -> PathBuf {
        self.folder.join("ark.pem")
    }

    /// What the model starts: this image, on a platform of which every part is as new as the VCEK says.
    pub fn bundle(&self, launch: &Launch) -> Result<Vec<u8>, Failure> {
        let endorsement = self.chain.endorsement();
        let tcb = u64::from_le_bytes(endorsement.tcb.to_bytes(endorsement.product));
        let scalar = self
            .chain
            .vcek_scalar()
            .map_err(|error| Failure::Development { path: self.folder.clone(), reason: error.to_string() })?;
        let table = self.chain.certificate_table();
        let table = match launch.proof {
            None => table,
            Some(proof) => staple(&table, proof)
                .map_err(|reason| Failure::Development { path: self.folder.clone(), reason })?,
        };
        let bundle = Bundle {
            image: launch.image,
            memory_mib: launch.memory_mib,
            vcpus: launch.vcpus,
            signature: CpuSignature(launch.cpu.signature()),
            policy: hostile::policy(Lie::from_name(launch.scenario)),
            chip_id: *self.chain.chip_id(),
            tcb: TcbVersions { current: tcb, reported: tcb, committed: tcb, launch: tcb },
            vcek: VcekScalar(scalar),
            certificates: &table,
            scenario: launch.scenario,
            strict: launch.strict,
        };
        Ok(bundle.encode()?)
    }
}

/// What is launched in the model.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The ROM or IGVM file.
    pub image: &'a [u8],
    /// The guest's RAM.
    pub memory_mib: u32,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// CPU type.
    pub cpu: CpuType,
    /// The lie that the model plays as a hostile host; empty for an honest one.
    pub scenario: &'a str,
    /// Whether the model also fails on what real hardware may forgive.
    pub strict: bool,
    /// The log's proof for the image, for clients; the guest hands it on unread.
    pub proof: Option<&'a [u8]>,
}

/// A certificate table with the log's proof in it.
fn staple(table: &[u8], proof: &[u8]) -> Result<Vec<u8>, String> {
    let mut entries = certificate_table::decode(table).map_err(|error| error.to_string())?;
    entries.push((certificate_table::PROOF, proof));
    let stapled = certificate_table::encode(&entries);
    if stapled.len() > MAX_CERTIFICATE_BYTES {
        return Err(format!(
            "the proof has {} bytes, {} more than fit beside the certificates; have clients read it from a file, or fewer \
             witnesses sign",
            proof.len(),
            stapled.len() - MAX_CERTIFICATE_BYTES
        ));
    }
    Ok(stapled)
}

/// Makes a chain next to its place and moves it there whole, so that nobody ever reads half of one.
fn make(folder: &Path) -> Result<(), DevelopmentError> {
    let mut unfinished = folder.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    Chain::generate(SystemTime::now())?.save(&unfinished)?;
    match fs::rename(&unfinished, folder) {
        Ok(()) => Ok(()),
        // Another launcher was faster; its chain is as good.
        Err(_) if folder.exists() => {
            let _ = fs::remove_dir_all(&unfinished);
            Ok(())
        }
        Err(source) => Err(DevelopmentError::File { path: folder.into(), source }),
    }
}

/// The same root with a VCEK for a chip of this product.
fn for_product(chain: Chain, product: Product) -> Result<Chain, DevelopmentError> {
    let kept = chain.endorsement();
    if kept.product == product {
        return Ok(chain);
    }
    let mut chip_id = [0; 64];
    let id_bytes = product.hardware_id_len();
    chip_id[..id_bytes].copy_from_slice(&kept.chip_id[..id_bytes]);
    let endorsement = Endorsement { product, chip_id, ..kept.clone() };
    chain.reissue(endorsement)
}

const fn product(cpu: CpuType) -> Product {
    match cpu {
        CpuType::Milan => Product::Milan,
        CpuType::Genoa => Product::Genoa,
        CpuType::Turin => Product::Turin,
    }
}

fn default_state() -> PathBuf {
    if let Ok(checkout) = Checkout::find() {
        return checkout.target();
    }
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    state.unwrap_or_else(env::temp_dir).join("cloister")
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation::report::GuestPolicy;
    use std::fs::read;

    #[test]
    fn a_chain_is_made_once_and_serves_every_product() {
        let state = tempfile::tempdir().unwrap();
        let first = Development::open(Some(state.path()), CpuType::Genoa).unwrap();
        let root = read(first.root_pem()).unwrap();
        assert!(root.starts_with(b"-----BEGIN CERTIFICATE-----"));
        for cpu in CpuType::ALL {
            let again = Development::open(Some(state.path()), cpu).unwrap();
            assert_eq!(again.chain.ark_der(), first.chain.ark_der(), "{cpu}");
            let launch = Launch {
                image: &[0; 4096],
                memory_mib: 1024,
                vcpus: 2,
                cpu,
                scenario: "a6-remap",
                strict: true,
                proof: None,
            };
            let bytes = again.bundle(&launch).unwrap();
            let bundle = Bundle::parse(&bytes).unwrap();
            assert_eq!(bundle.signature, CpuSignature(cpu.signature()));
            assert_eq!((bundle.memory_mib, bundle.vcpus, bundle.scenario), (1024, 2, "a6-remap"));
            assert_eq!(bundle.policy, GuestPolicy::CLOISTER.0);
            let vcek = again.chain.vcek_der();
            assert!(bundle.certificates.windows(vcek.len()).any(|part| part == vcek));
        }
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "nothing but the chain is left");
    }

    #[test]
    fn a_broken_chain_is_refused_with_its_folder() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("dev-chain");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("vcek.key.pem"), "no key").unwrap();
        let Err(error) = Development::open(Some(state.path()), CpuType::Genoa) else { panic!() };
        assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_bundle_that_the_model_would_refuse_is_not_made() {
        let state = tempfile::tempdir().unwrap();
        let development = Development::open(Some(state.path()), CpuType::Genoa).unwrap();
        let launch = Launch {
            image: &[0; 4096],
            memory_mib: 1024,
            vcpus: 1,
            cpu: CpuType::Genoa,
            scenario: "A 6",
            strict: true,
            proof: None,
        };
        assert!(matches!(development.bundle(&launch), Err(Failure::Bundle(_))));
    }
}
