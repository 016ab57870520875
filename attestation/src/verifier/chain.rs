//! From the report's signature up to a root: AMD's, or the development root that the policy names.

use super::{
    Policy, Relaxation,
    certificate::Certificate,
    error::{CertificateProblem as Problem, Role, TcbKind, VerifyError},
    roots,
};
use crate::{
    certificate_table::{self, Guid},
    endorsement::{self, DEVELOPMENT_ORGANISATION},
    report::{Product, Report, SigningKey, Tcb},
};
use der::asn1::Ia5StringRef;
use std::time::Duration;

/// The root that evidence ends at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// AMD's root key for the product, built in.
    Amd,
    /// The policy's development root: the evidence is that of an SNP model and protects nothing.
    Development,
}

/// A report whose signature leads to a root.
pub(super) struct Endorsed {
    pub(super) product: Product,
    pub(super) root: Root,
    /// Reported TCB, equal in report and certificate.
    pub(super) tcb: Tcb,
    /// True if a revocation list was consulted.
    pub(super) revocation: bool,
}

/// Root key and the key below it.
struct Authorities {
    ark: Certificate,
    ask: Certificate,
    root: Root,
}

/// Verifies the report's signature up to a root, and that report and certificates belong together.
pub(super) fn endorse(
    report: &Report,
    table: &[u8],
    policy: &Policy,
    now: Duration,
) -> Result<Endorsed, VerifyError> {
    let table = certificate_table::decode(table)?;
    let signing_key = report.signing_key();
    if signing_key == SigningKey::Vlek && !policy.relaxes(Relaxation::Vlek) {
        return Err(VerifyError::VlekNotAllowed);
    }

    let key = endorsement_key(report, &table, policy)?;
    let product = product(&key)?;
    let Authorities { ark, ask, root } = authorities(&key, &table, policy)?;

    // A development root is for every product, and the policy names that very certificate.
    if root == Root::Amd {
        ark.check_common_name(&format!("ARK-{product}"))?;
    }
    ask.check_common_name(&match signing_key {
        SigningKey::Vcek => format!("SEV-{product}"),
        SigningKey::Vlek => format!("SEV-VLEK-{product}"),
    })?;
    for (certificate, issuer, authority) in [(&ark, &ark, true), (&ask, &ark, true), (&key, &ask, false)] {
        certificate.check_issued_by(issuer)?;
        certificate.check_dates(now)?;
        certificate.check_authority(authority)?;
    }
    let mut revocation = false;
    for (certificate, issuer) in [(&ask, &ark), (&key, &ask)] {
        for list in policy.revocation_lists.iter().filter(|list| list.is_of(issuer)) {
            list.check(issuer, certificate, now)?;
            revocation = true;
        }
    }

    check_product(report, product, policy)?;
    let tcb = check_tcb(report, product, &key)?;
    if signing_key == SigningKey::Vcek {
        check_hardware_id(report, product, &key)?;
    }
    key.check_report(report.signed_bytes(), &report.signature())?;
    Ok(Endorsed { product, root, tcb, revocation })
}

/// The certificate of the key that signed: the host's, else the policy's one for this chip.
fn endorsement_key(
    report: &Report,
    table: &[(Guid, &[u8])],
    policy: &Policy,
) -> Result<Certificate, VerifyError> {
    let (guid, common_name) = match report.signing_key() {
        SigningKey::Vcek => (certificate_table::VCEK, "SEV-VCEK"),
        SigningKey::Vlek => (certificate_table::VLEK, "SEV-VLEK"),
    };
    let parse = |der: &[u8]| Certificate::parse(Role::EndorsementKey, der);
    let key = match find(table, guid) {
        Some(der) => parse(der)?,
        None => policy
            .certificates
            .iter()
            .filter_map(|der| parse(der).ok())
            .find(|key| {
                let id = key.extension(endorsement::HARDWARE_ID).unwrap_or_default();
                key.common_name().as_deref() == Some(common_name) && report.chip_id().starts_with(id)
            })
            .ok_or(VerifyError::NoEndorsement)?,
    };
    if key.common_name().as_deref() != Some(common_name) {
        return Err(VerifyError::KeyType(report.signing_key()));
    }
    Ok(key)
}

/// The product that an endorsement key's certificate names, a stepping behind a hyphen left out.
fn product(key: &Certificate) -> Result<Product, VerifyError> {
    let name: Ia5StringRef<'_> = key.read_extension(endorsement::PRODUCT_NAME)?;
    let line = name.as_str().split('-').next().unwrap_or_default();
    Product::ALL
        .into_iter()
        .find(|product| product.name() == line)
        .ok_or_else(|| key.refuse(Problem::Extension(endorsement::PRODUCT_NAME)))
}

/// Finds the keys above the endorsement key. A name of AMD's only ever leads to AMD's built-in keys, so a
/// development root cannot stand in for one.
fn authorities(
    key: &Certificate,
    table: &[(Guid, &[u8])],
    policy: &Policy,
) -> Result<Authorities, VerifyError> {
    let parse = Certificate::parse;
    for keys in &roots::AMD {
        for der in [keys.ask, keys.asvk] {
            let ask = parse(Role::Ask, der)?;
            if ask.subject() == key.issuer() {
                return Ok(Authorities { ark: parse(Role::Ark, keys.ark)?, ask, root: Root::Amd });
            }
        }
    }

    let Some(development) = &policy.development_root else {
        let organisation = key.issuer().organization().ok().flatten();
        return Err(match organisation {
            Some(name) if name.value() == DEVELOPMENT_ORGANISATION => VerifyError::DevelopmentRootNotGiven,
            _ => VerifyError::UnknownRoot(key.issuer().to_string()),
        });
    };
    let ark = parse(Role::Ark, development)?;
    let offered = find(table, certificate_table::ASK).into_iter();
    let ask = offered
        .chain(policy.certificates.iter().map(Vec::as_slice))
        .filter_map(|der| parse(Role::Ask, der).ok())
        .find(|ask| ask.subject() == key.issuer() && ask.issuer() == ark.subject())
        .ok_or_else(|| VerifyError::UnknownRoot(key.issuer().to_string()))?;
    Ok(Authorities { ark, ask, root: Root::Development })
}

fn check_product(report: &Report, product: Product, policy: &Policy) -> Result<(), VerifyError> {
    if let Some((family, model, _)) = report.cpuid() {
        let of_report =
            Product::from_cpuid(family, model).ok_or(VerifyError::UnknownChip { family, model })?;
        if of_report != product {
            return Err(VerifyError::ProductMismatch { report: of_report, certificate: product.to_string() });
        }
    }
    if product == Product::Milan && !policy.relaxes(Relaxation::Milan) {
        return Err(VerifyError::ProductRefused(product));
    }
    Ok(())
}

/// Every component in the certificate is the one that the report claims (REQUIREMENTS B2).
fn check_tcb(report: &Report, product: Product, key: &Certificate) -> Result<Tcb, VerifyError> {
    let tcb = Tcb::from_bytes(product, report.reported_tcb())
        .ok_or(VerifyError::TcbReserved(TcbKind::Reported, product))?;
    for component in endorsement::components(product) {
        let certificate = key.read_extension(component.oid)?;
        let report = *(component.of)(&mut tcb.clone());
        if certificate != report {
            return Err(VerifyError::TcbMismatch { component: component.name, report, certificate });
        }
    }
    for oid in endorsement::UNUSED_SPLS {
        if key.extension(oid).is_some() && key.read_extension::<u8>(oid)? != 0 {
            return Err(key.refuse(Problem::Extension(oid)));
        }
    }
    Ok(tcb)
}

/// The certificate is for the chip in the report (REQUIREMENTS B2, B8).
fn check_hardware_id(report: &Report, product: Product, key: &Certificate) -> Result<(), VerifyError> {
    let chip_id = report.chip_id();
    if chip_id == [0; 64] {
        return Err(VerifyError::ChipIdMasked);
    }
    let id = key
        .extension(endorsement::HARDWARE_ID)
        .ok_or_else(|| key.refuse(Problem::Extension(endorsement::HARDWARE_ID)))?;
    let (of_report, rest) = chip_id.split_at(product.hardware_id_len());
    if id == of_report && rest.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(VerifyError::HardwareId) }
}

fn find<'a>(table: &[(Guid, &'a [u8])], guid: Guid) -> Option<&'a [u8]> {
    table.iter().find(|(known, _)| *known == guid).map(|&(_, der)| der)
}
