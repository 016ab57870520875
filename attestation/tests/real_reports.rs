//! Reports of real AMD platforms, from other projects' tests (origins in `data/README.md`): they verify up to AMD's
//! built-in roots, and no altered one does.

mod common;

use attestation::{
    certificate_table::{self, Guid},
    report::{Product, Report, SigningKey, Tcb},
    verifier::{
        CertificateProblem, ChipId, Digest, NonEmpty, Policy, Relaxation, Relaxed, Role, Root, Verdict,
        VerifyError, Weakness, verify_unbound,
    },
};
use std::time::{Duration, SystemTime};

struct Vector {
    name: &'static str,
    report: &'static [u8],
    key: &'static [u8],
    product: Product,
    version: u32,
    /// Seconds since 1970 at which its certificates are valid.
    now: Duration,
}

macro_rules! data {
    ($file:literal) => {
        include_bytes!(concat!("data/", $file))
    };
}

const MILAN_V2: Vector = Vector {
    name: "Milan, version 2",
    report: data!("milan-v2.report"),
    key: data!("milan-v2.vcek.der"),
    product: Product::Milan,
    version: 2,
    now: common::FEBRUARY_2026,
};
const MILAN_V3: Vector = Vector {
    name: "Milan, version 3",
    report: data!("milan-v3.report"),
    key: data!("milan-v3.vcek.der"),
    product: Product::Milan,
    version: 3,
    now: common::FEBRUARY_2026,
};
const GENOA_V3: Vector = Vector {
    name: "Genoa, version 3",
    report: data!("genoa-v3.report"),
    key: data!("genoa-v3.vcek.der"),
    product: Product::Genoa,
    version: 3,
    now: common::FEBRUARY_2026,
};
const SIENA_V5: Vector = Vector {
    name: "Genoa (Bergamo or Siena), version 5",
    report: data!("genoa-v5.report"),
    key: data!("genoa-v5.vcek.der"),
    product: Product::Genoa,
    version: 5,
    now: common::FEBRUARY_2026,
};
const TURIN_V5: Vector = Vector {
    name: "Turin, version 5",
    report: data!("turin-v5.report"),
    key: data!("turin-v5.vcek.der"),
    product: Product::Turin,
    version: 5,
    now: common::FEBRUARY_2026,
};
/// Signed with a VLEK whose certificate is valid in June 2025, at VMPL 1.
const MILAN_VLEK: Vector = Vector {
    name: "Milan with VLEK, version 3",
    report: data!("milan-v3-vlek.report"),
    key: data!("milan-v3-vlek.vlek.der"),
    product: Product::Milan,
    version: 3,
    now: Duration::from_secs(1_750_000_000),
};
/// Guests that are not debuggable and run at VMPL 0.
const ACCEPTABLE: [Vector; 4] = [MILAN_V3, GENOA_V3, SIENA_V5, TURIN_V5];

impl Vector {
    fn parsed(&self) -> Report {
        Report::parse(self.report).unwrap()
    }

    fn guid(&self) -> Guid {
        match self.parsed().signing_key() {
            SigningKey::Vcek => certificate_table::VCEK,
            SigningKey::Vlek => certificate_table::VLEK,
        }
    }

    fn table(&self) -> Vec<u8> {
        certificate_table::encode(&[(self.guid(), self.key)])
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now
    }

    /// Accepts this vector's image, with nothing relaxed.
    fn strict(&self) -> Policy {
        Policy::accepting(NonEmpty::from(common::image(self.parsed().measurement(), common::MANIFEST_DIGEST)))
    }

    /// Accepts all that these machines' guests were launched without.
    fn relaxed(&self) -> Policy {
        let id_key = Digest::try_from(self.parsed().id_key_digest());
        Relaxation::ALL
            .into_iter()
            .fold(self.strict(), Policy::with_relaxation)
            .with_id_keys(id_key.into_iter().collect())
            .with_minimum_tcb(self.product, Tcb { snp: 4, ..Tcb::default() })
    }

    fn verify(&self, policy: &Policy) -> Result<Verdict, VerifyError> {
        verify_unbound(self.report, &self.table(), policy, self.now())
    }
}

#[test]
fn real_reports_verify_up_to_amd() {
    for vector in ACCEPTABLE {
        assert_eq!(vector.parsed().version(), vector.version, "{}", vector.name);
        let verdict = vector.verify(&vector.relaxed()).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        assert_eq!((verdict.product, verdict.root), (vector.product, Root::Amd), "{}", vector.name);
        assert!(verdict.protects());
        for relaxation in Relaxation::ALL {
            assert!(verdict.relaxed.contains(&Relaxed::Granted(relaxation)), "{}", vector.name);
        }
    }
}

#[test]
fn b2_the_built_in_minimum_tcb_refuses_machines_without_the_fixes() {
    // The relaxed policy, but with the built-in minimum.
    let verify = |vector: &Vector| {
        let id_key = Digest::try_from(vector.parsed().id_key_digest());
        let policy = Relaxation::ALL
            .into_iter()
            .fold(vector.strict(), Policy::with_relaxation)
            .with_id_keys(id_key.into_iter().collect());
        vector.verify(&policy)
    };
    assert!(matches!(verify(&GENOA_V3), Err(VerifyError::TcbTooOld { .. })), "SNP firmware 23 is below 27");
    assert!(verify(&SIENA_V5).is_ok());
    assert!(verify(&TURIN_V5).is_ok());
}

#[test]
fn b3_every_guest_that_was_not_launched_for_cloister_is_refused() {
    for vector in [GENOA_V3, SIENA_V5, TURIN_V5] {
        let policy = vector.strict().with_minimum_tcb(vector.product, Tcb::default());
        assert!(matches!(vector.verify(&policy), Err(VerifyError::Weak(_))), "{}", vector.name);
    }
}

#[test]
fn b3_a_debuggable_guest_is_refused_whatever_is_relaxed() {
    let policy = MILAN_V2.relaxed().with_minimum_tcb(Product::Milan, Tcb::default());
    assert_eq!(MILAN_V2.verify(&policy), Err(VerifyError::Weak(Weakness::Debug)));
}

#[test]
fn b4_milan_is_refused_by_default() {
    assert_eq!(MILAN_V3.verify(&MILAN_V3.strict()), Err(VerifyError::ProductRefused(Product::Milan)));
}

#[test]
fn b4_a_vlek_is_refused_by_default() {
    assert_eq!(MILAN_VLEK.verify(&MILAN_VLEK.strict()), Err(VerifyError::VlekNotAllowed));
}

#[test]
fn b4_an_allowed_vlek_verifies_up_to_amd_and_then_the_level_counts() {
    assert_eq!(MILAN_VLEK.verify(&MILAN_VLEK.relaxed()), Err(VerifyError::Vmpl(1)));
    let mut report = MILAN_VLEK.report.to_vec();
    report[0x50] ^= 1;
    let altered = verify_unbound(&report, &MILAN_VLEK.table(), &MILAN_VLEK.relaxed(), MILAN_VLEK.now());
    assert_eq!(altered, Err(VerifyError::ReportSignature));
}

#[test]
fn b4_only_listed_chips_are_accepted() {
    let listed = |hex: &str| NonEmpty::from(ChipId::try_from(hex.to_owned()).unwrap());
    let policy = TURIN_V5.relaxed().with_chips(listed("59790fb1c39f35c1"));
    assert!(TURIN_V5.verify(&policy).is_ok());
    let policy = TURIN_V5.relaxed().with_chips(listed("59790fb1c39f35c2"));
    assert_eq!(TURIN_V5.verify(&policy), Err(VerifyError::ChipNotListed("59790fb1c39f35c1".into())));
}

#[test]
fn b6_no_report_with_a_flipped_bit_is_accepted() {
    for vector in ACCEPTABLE {
        let (policy, table) = (vector.relaxed(), vector.table());
        for at in 0..vector.report.len() {
            let mut report = vector.report.to_vec();
            report[at] ^= 1 << (at % 8);
            let result = verify_unbound(&report, &table, &policy, vector.now());
            assert!(result.is_err(), "{}: byte {at:#x}", vector.name);
        }
    }
}

#[test]
fn b6_no_report_of_another_length_is_accepted() {
    let (policy, table) = (TURIN_V5.relaxed(), TURIN_V5.table());
    for length in 0..TURIN_V5.report.len() {
        assert!(verify_unbound(&TURIN_V5.report[..length], &table, &policy, TURIN_V5.now()).is_err());
    }
    let longer = [TURIN_V5.report, &[0]].concat();
    assert!(verify_unbound(&longer, &table, &policy, TURIN_V5.now()).is_err());
}

#[test]
fn b8_no_certificate_with_a_flipped_bit_is_accepted() {
    for vector in [GENOA_V3, TURIN_V5] {
        let policy = vector.relaxed();
        for at in 0..vector.key.len() {
            let mut key = vector.key.to_vec();
            key[at] ^= 1 << (at % 8);
            let table = certificate_table::encode(&[(vector.guid(), &key)]);
            let result = verify_unbound(vector.report, &table, &policy, vector.now());
            assert!(result.is_err(), "{}: byte {at:#x}", vector.name);
        }
    }
}

#[test]
fn b8_a_report_with_the_certificate_of_another_chip_is_refused() {
    for vector in &ACCEPTABLE {
        for other in ACCEPTABLE.iter().filter(|other| other.name != vector.name) {
            let result = verify_unbound(vector.report, &other.table(), &vector.relaxed(), vector.now());
            assert!(result.is_err(), "{} with the key of {}", vector.name, other.name);
        }
    }
    let swapped = verify_unbound(GENOA_V3.report, &SIENA_V5.table(), &GENOA_V3.relaxed(), GENOA_V3.now());
    assert!(matches!(swapped, Err(VerifyError::TcbMismatch { .. })), "{swapped:?}");
    let swapped = verify_unbound(GENOA_V3.report, &TURIN_V5.table(), &GENOA_V3.relaxed(), GENOA_V3.now());
    assert!(matches!(swapped, Err(VerifyError::ProductMismatch { .. })), "{swapped:?}");
}

#[test]
fn b8_forged_certificates_from_another_project_are_refused() {
    let report = data!("milan-v2-other.report");
    let genuine = Vector {
        name: "Milan, version 2, other",
        report,
        key: data!("milan-v2-other.vcek.der"),
        product: Product::Milan,
        version: 2,
        now: Duration::from_secs(1_700_000_000),
    };
    let policy = genuine.relaxed();
    assert_eq!(genuine.verify(&policy).map(|verdict| verdict.root), Ok(Root::Amd));
    for key in [&data!("milan-v2-other.invalid-new.der")[..], data!("milan-v2-other.invalid-legacy.der")] {
        let table = certificate_table::encode(&[(certificate_table::VCEK, key)]);
        let forged =
            VerifyError::Certificate { role: Role::EndorsementKey, problem: CertificateProblem::Signature };
        assert_eq!(verify_unbound(report, &table, &policy, genuine.now()), Err(forged));
    }
}

#[test]
fn b9_the_callers_clock_decides() {
    let at = |now: Duration| {
        let now = SystemTime::UNIX_EPOCH + now;
        verify_unbound(TURIN_V5.report, &TURIN_V5.table(), &TURIN_V5.relaxed(), now)
    };
    let years = |n: u64| Duration::from_secs(n * 365 * 24 * 60 * 60);
    assert!(matches!(
        at(TURIN_V5.now - years(1)),
        Err(VerifyError::Certificate {
            role: Role::EndorsementKey,
            problem: CertificateProblem::NotYetValid(_)
        })
    ));
    assert!(matches!(
        at(TURIN_V5.now + years(8)),
        Err(VerifyError::Certificate { role: Role::EndorsementKey, problem: CertificateProblem::Expired(_) })
    ));
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let result = verify_unbound(TURIN_V5.report, &TURIN_V5.table(), &TURIN_V5.relaxed(), before_1970);
    assert_eq!(result, Err(VerifyError::Clock));
}

#[test]
fn b9_without_certificates_from_the_host_those_of_the_policy_count() {
    let policy = TURIN_V5.relaxed();
    let without = verify_unbound(TURIN_V5.report, &[], &policy, TURIN_V5.now());
    assert_eq!(without, Err(VerifyError::NoEndorsement));
    let stapled = policy.with_certificate(GENOA_V3.key).with_certificate(TURIN_V5.key);
    assert!(verify_unbound(TURIN_V5.report, &[], &stapled, TURIN_V5.now()).is_ok());
}

#[test]
fn b10_a_development_root_does_not_stand_in_for_amd() {
    let policy = TURIN_V5.relaxed().with_development_root(common::CHAIN.ark_der());
    assert_eq!(TURIN_V5.verify(&policy).map(|verdict| verdict.root), Ok(Root::Amd));
}

#[test]
fn b7_another_launch_digest_is_refused() {
    let mut digest = TURIN_V5.parsed().measurement();
    digest[47] ^= 1;
    let policy = Policy::accepting(NonEmpty::from(common::image(digest, common::MANIFEST_DIGEST)));
    assert!(matches!(TURIN_V5.verify(&policy), Err(VerifyError::LaunchDigest(_))));
}
