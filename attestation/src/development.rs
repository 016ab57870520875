//! Key chains for SNP models: ARK → ASK → VCEK, encoded as AMD encodes its own (AMD 57230).
//!
//! They protect nothing, and say so in every name. A verifier accepts such a chain only if its policy names the root,
//! and its verdict then says so too (REQUIREMENTS B10).

mod platform;
mod x509;

use crate::{
    certificate_table, endorsement,
    report::{self, Product, Tcb},
};
use aws_lc_rs::{
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der},
    rand::{SecureRandom, SystemRandom},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use der::{
    Decode, Encode,
    asn1::{Any, BitString, Ia5StringRef, ObjectIdentifier},
    pem::{self, LineEnding},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use x509::{Request, algorithm, extension, name, serial, sign, time, validity};
use x509_cert::{
    certificate::Version,
    crl::{CertificateList, RevokedCert, TbsCertList},
    name::Name,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

/// As long as AMD's VCEKs are valid.
const VCEK_LIFETIME: Duration = Duration::from_secs(7 * 365 * 24 * 60 * 60);
/// As long as AMD's ARKs and ASKs are valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(25 * 365 * 24 * 60 * 60);
/// Certificates start a day early, for clocks that are behind.
const LEEWAY: Duration = Duration::from_secs(24 * 60 * 60);

const ARK_SERIAL: u8 = 1;
const VCEK_SERIAL: u8 = 1;

const fn ask_serial(product: Product) -> u8 {
    ARK_SERIAL + 1 + product as u8
}

/// Why there is no chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevelopmentError {
    /// A key could not be made or used.
    #[error("the cryptographic library failed to make or use a key")]
    Key(#[from] aws_lc_rs::error::Unspecified),
    /// A structure could not be encoded.
    #[error("a development certificate could not be encoded: {0}")]
    Encoding(#[from] der::Error),
    /// A file of the chain cannot be read or written.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of the chain holds something else.
    #[error("{0} is not a file of a development chain; delete the folder and have a new one made")]
    Content(PathBuf),
}

type Result<T> = std::result::Result<T, DevelopmentError>;

/// What a VCEK is issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The product.
    pub product: Product,
    /// The TCB that the key is derived from.
    pub tcb: Tcb,
    /// The chip; for Turin only the first 8 bytes are not zero.
    pub chip_id: [u8; 64],
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
}

impl Endorsement {
    /// A Genoa chip with a random id whose firmware is as new as verifiers demand of any product, valid as long as
    /// AMD's.
    pub fn new(now: SystemTime) -> Result<Self> {
        let mut chip_id = [0; 64];
        SystemRandom::new().fill(&mut chip_id)?;
        Ok(Self {
            product: Product::Genoa,
            tcb: Tcb { fmc: 0, boot_loader: 10, tee: 0, snp: 0x1B, microcode: 0xDB },
            chip_id,
            not_before: now - LEEWAY,
            not_after: now + VCEK_LIFETIME,
        })
    }
}

/// A root or signing key and its certificate.
struct Authority {
    key: RsaKeyPair,
    name: Name,
    validity: Validity,
    certificate: Vec<u8>,
}

impl Authority {
    /// The root, which is the same for every product, so that a policy names one file.
    fn root(size: KeySize, validity: Validity) -> Result<Self> {
        let (key, name) = (RsaKeyPair::generate(size)?, name("ARK-development")?);
        let request = Request::authority(ARK_SERIAL, &name, &key, validity, 1)?;
        let certificate = request.sign(&name, &key)?;
        Ok(Self { key, name, validity, certificate })
    }

    /// The signing key for a product, under this root.
    fn signing_key(&self, product: Product) -> Result<Self> {
        let (key, name) = (RsaKeyPair::generate(KeySize::Rsa4096)?, name(&format!("SEV-{product}"))?);
        let request = Request::authority(ask_serial(product), &name, &key, self.validity, 0)?;
        let certificate = request.sign(&self.name, &self.key)?;
        Ok(Self { key, name, validity: self.validity, certificate })
    }
}

/// A whole chain with its private keys.
pub struct Chain {
    ark: Authority,
    ask: Authority,
    vcek: EcdsaKeyPair,
    vcek_certificate: Vec<u8>,
    endorsement: Endorsement,
}

impl Chain {
    /// Makes a chain for [`Endorsement::new`].
    pub fn generate(now: SystemTime) -> Result<Self> {
        Self::generate_for(Endorsement::new(now)?, now)
    }

    /// Makes a chain for a chip of one's own description.
    pub fn generate_for(endorsement: Endorsement, now: SystemTime) -> Result<Self> {
        Self::with_root_of(KeySize::Rsa4096, endorsement, now)
    }

    fn with_root_of(size: KeySize, endorsement: Endorsement, now: SystemTime) -> Result<Self> {
        let ark = Authority::root(size, validity(now - LEEWAY, now + AUTHORITY_LIFETIME)?)?;
        let ask = ark.signing_key(endorsement.product)?;
        let (vcek, vcek_certificate) = issue(&ask, &endorsement)?;
        Ok(Self { ark, ask, vcek, vcek_certificate, endorsement })
    }

    /// Issues a new VCEK under the same root, in place of the old one; for another product, under a new signing key.
    pub fn reissue(self, endorsement: Endorsement) -> Result<Self> {
        let ask = if endorsement.product == self.endorsement.product {
            self.ask
        } else {
            self.ark.signing_key(endorsement.product)?
        };
        let (vcek, vcek_certificate) = issue(&ask, &endorsement)?;
        Ok(Self { ark: self.ark, ask, vcek, vcek_certificate, endorsement })
    }

    /// The root certificate in DER.
    pub fn ark_der(&self) -> &[u8] {
        &self.ark.certificate
    }

    /// The root certificate in PEM, as a policy's `development_root` names it.
    pub fn ark_pem(&self) -> Result<String> {
        certificate_pem(&self.ark.certificate)
    }

    /// The signing key's certificate in DER.
    pub fn ask_der(&self) -> &[u8] {
        &self.ask.certificate
    }

    /// The VCEK's certificate in DER.
    pub fn vcek_der(&self) -> &[u8] {
        &self.vcek_certificate
    }

    /// The VCEK's private scalar, big-endian.
    pub fn vcek_scalar(&self) -> Result<[u8; 48]> {
        let scalar: EcPrivateKeyBin<'_> = self.vcek.private_key().as_be_bytes()?;
        scalar.as_ref().try_into().map_err(|_| aws_lc_rs::error::Unspecified.into())
    }

    /// What the VCEK is issued for.
    pub fn endorsement(&self) -> &Endorsement {
        &self.endorsement
    }

    /// The chip's id.
    pub fn chip_id(&self) -> &[u8; 64] {
        &self.endorsement.chip_id
    }

    /// The certificate table that a host hands to its guests.
    pub fn certificate_table(&self) -> Vec<u8> {
        certificate_table::encode(&[
            (certificate_table::VCEK, self.vcek_der()),
            (certificate_table::ASK, self.ask_der()),
            (certificate_table::ARK, self.ark_der()),
        ])
    }

    /// Signs a report as the AMD-SP does, over its first [`report::SIGNED_LEN`] bytes.
    pub fn sign(&self, report: &mut [u8; report::LEN]) -> Result<()> {
        let (signed, field) = report.split_at_mut(report::SIGNED_LEN);
        let signature = self.vcek.sign(&SystemRandom::new(), signed)?;
        let signature = signature.as_ref().try_into().map_err(|_| aws_lc_rs::error::Unspecified)?;
        field.copy_from_slice(&report::signature_field(signature));
        Ok(())
    }

    /// A revocation list of the root, in DER; with or without the signing key on it.
    pub fn revocation_list(&self, revoke_ask: bool, from: SystemTime, until: SystemTime) -> Result<Vec<u8>> {
        let revoked = RevokedCert {
            serial_number: serial(ask_serial(self.endorsement.product))?,
            revocation_date: time(from)?,
            crl_entry_extensions: None,
        };
        let list = TbsCertList {
            version: Version::V2,
            signature: algorithm()?,
            issuer: self.ark.name.clone(),
            this_update: time(from)?,
            next_update: Some(time(until)?),
            revoked_certificates: revoke_ask.then(|| vec![revoked]),
            crl_extensions: None,
        };
        let signature = sign(&list.to_der()?, &self.ark.key)?;
        let list: CertificateList =
            CertificateList { tbs_cert_list: list, signature_algorithm: algorithm()?, signature };
        Ok(list.to_der()?)
    }

    /// Writes the chain and its keys into a folder, which is made if need be.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let write = |file: &str, text: String| {
            let path = folder.join(file);
            fs::write(&path, text).map_err(|source| DevelopmentError::File { path, source })
        };
        let key_pem = |der: &[u8]| pem_text("PRIVATE KEY", der);
        fs::create_dir_all(folder)
            .map_err(|source| DevelopmentError::File { path: folder.to_owned(), source })?;
        for (authority, file) in [(&self.ark, "ark"), (&self.ask, "ask")] {
            let key: Pkcs8V1Der<'_> = authority.key.as_der()?;
            write(&format!("{file}.key.pem"), key_pem(key.as_ref())?)?;
            write(&format!("{file}.pem"), certificate_pem(&authority.certificate)?)?;
        }
        write("vcek.key.pem", key_pem(self.vcek.to_pkcs8v1()?.as_ref())?)?;
        write("vcek.pem", certificate_pem(&self.vcek_certificate)?)
    }

    /// Reads what [`Self::save`] wrote.
    pub fn load(folder: &Path) -> Result<Self> {
        let authority = |file: &str| {
            let (key, path) = read_pem(folder, &format!("{file}.key.pem"))?;
            let key = RsaKeyPair::from_pkcs8(&key).map_err(|_| DevelopmentError::Content(path))?;
            let (certificate, path) = read_pem(folder, &format!("{file}.pem"))?;
            let parsed = x509_cert::Certificate::from_der(&certificate)
                .map_err(|_| DevelopmentError::Content(path))?;
            let tbs = parsed.tbs_certificate();
            let (name, validity) = (tbs.subject().clone(), *tbs.validity());
            Ok::<_, DevelopmentError>(Authority { key, name, validity, certificate })
        };
        let (key, path) = read_pem(folder, "vcek.key.pem")?;
        let vcek = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &key)
            .map_err(|_| DevelopmentError::Content(path))?;
        let (vcek_certificate, path) = read_pem(folder, "vcek.pem")?;
        let endorsement = read_endorsement(&vcek_certificate).ok_or(DevelopmentError::Content(path))?;
        Ok(Self { ark: authority("ark")?, ask: authority("ask")?, vcek, vcek_certificate, endorsement })
    }
}

/// Makes a VCEK and has it certified.
fn issue(ask: &Authority, endorsement: &Endorsement) -> Result<(EcdsaKeyPair, Vec<u8>)> {
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)?;
    let certificate = request(&key, endorsement)?.sign(&ask.name, &ask.key)?;
    Ok((key, certificate))
}

/// A VCEK's certificate before it is signed.
fn request(key: &EcdsaKeyPair, endorsement: &Endorsement) -> Result<Request> {
    let Endorsement { product, tcb, chip_id, not_before, not_after } = endorsement;
    let struct_version: u8 = if *product == Product::Turin { 1 } else { 0 };
    let mut extensions = vec![
        extension(endorsement::STRUCT_VERSION, struct_version.to_der()?)?,
        extension(endorsement::PRODUCT_NAME, Ia5StringRef::new(product.name())?.to_der()?)?,
    ];
    let mut tcb = *tcb;
    for component in endorsement::components(*product) {
        extensions.push(extension(component.oid, (component.of)(&mut tcb).to_der()?)?);
    }
    for oid in endorsement::UNUSED_SPLS {
        extensions.push(extension(oid, 0u8.to_der()?)?);
    }
    extensions.push(extension(endorsement::HARDWARE_ID, chip_id[..product.hardware_id_len()].to_vec())?);

    Ok(Request {
        serial: VCEK_SERIAL,
        subject: name("SEV-VCEK")?,
        key: SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"),
                parameters: Some(Any::encode_from(&ObjectIdentifier::new_unwrap("1.3.132.0.34"))?),
            },
            subject_public_key: BitString::from_bytes(key.public_key().as_ref())?,
        },
        validity: validity(*not_before, *not_after)?,
        extensions,
    })
}

/// Reads back from a VCEK's certificate what it was issued for.
fn read_endorsement(certificate: &[u8]) -> Option<Endorsement> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let tbs = certificate.tbs_certificate();
    let octets = |oid: ObjectIdentifier| {
        let extension = tbs.extensions()?.iter().find(|e| e.extn_id == oid)?;
        Some(extension.extn_value.as_bytes())
    };
    let product_name = Ia5StringRef::from_der(octets(endorsement::PRODUCT_NAME)?).ok()?;
    let product = Product::ALL.into_iter().find(|p| p.name() == product_name.as_str())?;

    let mut tcb = Tcb::default();
    for component in endorsement::components(product) {
        *(component.of)(&mut tcb) = u8::from_der(octets(component.oid)?).ok()?;
    }
    let mut chip_id = [0; 64];
    let id = octets(endorsement::HARDWARE_ID).filter(|id| id.len() == product.hardware_id_len())?;
    chip_id[..id.len()].copy_from_slice(id);
    let at = |time: Time| SystemTime::UNIX_EPOCH + time.to_unix_duration();
    Some(Endorsement {
        product,
        tcb,
        chip_id,
        not_before: at(tbs.validity().not_before),
        not_after: at(tbs.validity().not_after),
    })
}

fn certificate_pem(der: &[u8]) -> Result<String> {
    pem_text("CERTIFICATE", der)
}

fn pem_text(label: &str, der: &[u8]) -> Result<String> {
    Ok(pem::encode_string(label, LineEnding::LF, der).map_err(der::Error::from)?)
}

fn read_pem(folder: &Path, file: &str) -> Result<(Vec<u8>, PathBuf)> {
    let path = folder.join(file);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(DevelopmentError::File { path, source }),
    };
    match pem::decode_vec(&text) {
        Ok((_, der)) => Ok((der, path)),
        Err(_) => Err(DevelopmentError::Content(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::offset,
        verifier::{CertificateProblem, Digest, Image, NonEmpty, Policy, Role, VerifyError, verify_unbound},
    };

    /// How a report whose form is right, signed by this chain, fares.
    fn refusal(chain: &Chain, now: SystemTime) -> VerifyError {
        let mut report = [0; report::LEN];
        for (at, value) in [(offset::VERSION, 5), (offset::SIGNATURE_ALGO, report::ECDSA_P384_SHA384)] {
            report[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        report[offset::CPUID_FAMILY..][..2].copy_from_slice(&[0x19, 0x11]);
        chain.sign(&mut report).unwrap();
        let digest = Digest::try_from([1; 48]).unwrap();
        let image = Image {
            name: String::new(),
            version: String::new(),
            model: String::new(),
            manifest_digest: digest,
            launch_digests: NonEmpty::from(digest),
        };
        let policy = Policy::accepting(NonEmpty::from(image)).with_development_root(chain.ark_der());
        verify_unbound(&report, &chain.certificate_table(), &policy, now).unwrap_err()
    }

    #[test]
    fn b8_a_signing_key_of_one_product_does_not_endorse_chips_of_another() {
        let now = SystemTime::now();
        let mut chain = Chain::generate(now).unwrap();
        let turin = Endorsement { product: Product::Turin, ..chain.endorsement.clone() };
        (chain.vcek, chain.vcek_certificate) = issue(&chain.ask, &turin).unwrap();
        let expected =
            CertificateProblem::CommonName { expected: "SEV-Turin".into(), found: "SEV-Genoa".into() };
        assert_eq!(refusal(&chain, now), VerifyError::Certificate { role: Role::Ask, problem: expected });
    }

    #[test]
    fn b8_a_signing_key_that_is_no_authority_is_refused() {
        let now = SystemTime::now();
        let mut chain = Chain::generate(now).unwrap();
        let Authority { key, name, validity, .. } = &chain.ask;
        let mut request = Request::authority(9, name, key, *validity, 0).unwrap();
        request.extensions.clear();
        chain.ask.certificate = request.sign(&chain.ark.name, &chain.ark.key).unwrap();
        let expected = VerifyError::Certificate { role: Role::Ask, problem: CertificateProblem::Authority };
        assert_eq!(refusal(&chain, now), expected);
    }

    #[test]
    fn b2_a_component_that_the_product_does_not_have_must_be_zero_in_the_certificate() {
        let now = SystemTime::now();
        let mut chain = Chain::generate(now).unwrap();
        chain.endorsement.tcb = Tcb::default();
        for oid in endorsement::UNUSED_SPLS {
            let mut request = request(&chain.vcek, &chain.endorsement).unwrap();
            let unused = request.extensions.iter_mut().find(|e| e.extn_id == oid).unwrap();
            *unused = extension(oid, 1u8.to_der().unwrap()).unwrap();
            chain.vcek_certificate = request.sign(&chain.ask.name, &chain.ask.key).unwrap();
            let problem = CertificateProblem::Extension(oid);
            assert_eq!(
                refusal(&chain, now),
                VerifyError::Certificate { role: Role::EndorsementKey, problem }
            );
        }
    }

    #[test]
    fn b8_a_root_with_a_shorter_key_is_refused() {
        let now = SystemTime::now();
        let chain = Chain::with_root_of(KeySize::Rsa2048, Endorsement::new(now).unwrap(), now).unwrap();
        let expected = VerifyError::Certificate { role: Role::Ark, problem: CertificateProblem::Key };
        assert_eq!(refusal(&chain, now), expected);
    }
}
