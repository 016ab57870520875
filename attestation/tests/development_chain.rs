//! Reports signed by a development chain: each field that the policy looks at, altered *before* signing, is refused
//! for its own reason. (That altering after signing never helps is shown with real reports.)

mod common;

use attestation::{
    certificate_table,
    development::{Chain, DevelopmentError, Endorsement},
    report::{GuestPolicy, LEN, PlatformInfo, Product, ReportError, SIGNED_LEN, Tcb, offset},
    verifier::{
        CertificateProblem, Check, Digest, NonEmpty, Policy, Relaxation, Relaxed, RevocationProblem, Role,
        Root, TcbKind, Verdict, VerifyError, Weakness, verify_unbound,
    },
};
use common::{CHAIN, altered_report, now, policy};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const BOUND: [u8; 64] = [0x5A; 64];

fn verify(report: &[u8], policy: &Policy) -> Result<Verdict, VerifyError> {
    verify_unbound(report, &CHAIN.certificate_table(), policy, now())
}

/// The verdict on a report that was signed with something in it altered.
fn verify_altered(alter: impl FnOnce(&mut [u8; LEN])) -> Result<Verdict, VerifyError> {
    verify(&altered_report(&BOUND, alter), &policy())
}

fn set(at: usize, bytes: &[u8]) -> impl FnOnce(&mut [u8; LEN]) {
    move |report| report[at..at + bytes.len()].copy_from_slice(bytes)
}

fn flip(at: usize, bits: u64) -> impl FnOnce(&mut [u8; LEN]) {
    move |report| {
        let flipped = u64::from_le_bytes(report[at..at + 8].try_into().unwrap()) ^ bits;
        report[at..at + 8].copy_from_slice(&flipped.to_le_bytes());
    }
}

#[test]
fn an_honest_report_is_accepted_and_the_verdict_says_all() {
    let verdict = verify(&common::report(&BOUND), &policy()).unwrap();
    assert_eq!(verdict.root, Root::Development);
    assert!(!verdict.protects());
    assert_eq!(verdict.product, Product::Genoa);
    assert_eq!(verdict.tcb, CHAIN.endorsement().tcb);
    assert_eq!(verdict.chip_id, CHAIN.chip_id());
    assert_eq!(verdict.relaxed, [Relaxed::DevelopmentRoot, Relaxed::NoRevocationList]);
    let checks = [
        Check::Chain,
        Check::Signature,
        Check::Platform,
        Check::Image,
        Check::MinimumTcb,
        Check::GuestPolicy,
    ];
    assert_eq!(verdict.checked, checks);
    let [image, model, checked] = verdict.lines();
    assert!(image.contains("cloister 0.1.0") && image.contains("a1a1a1a1a1a1a1a1"), "{image}");
    assert!(model.contains("cloister-mini.gguf"), "{model}");
    assert!(checked.ends_with("DEVELOPMENT ROOT: this is an SNP model, it protects nothing"), "{checked}");
}

#[test]
fn b2_a_tcb_that_the_certificate_does_not_state_is_refused() {
    // Byte of the report's TCB (AMD 56860, table 3, before Turin), and the component's name.
    for (byte, component) in [(0, "boot loader"), (1, "tee"), (6, "snp"), (7, "microcode")] {
        let result = verify_altered(|report| report[offset::REPORTED_TCB + byte] += 1);
        assert!(
            matches!(result, Err(VerifyError::TcbMismatch { component: c, .. }) if c == component),
            "{component}: {result:?}"
        );
    }
    for byte in 2..6 {
        let result = verify_altered(|report| report[offset::REPORTED_TCB + byte] = 1);
        assert_eq!(result, Err(VerifyError::TcbReserved(TcbKind::Reported, Product::Genoa)));
    }
}

#[test]
fn b2_every_tcb_is_held_to_the_minimum() {
    for (at, kind) in [
        (offset::COMMITTED_TCB, TcbKind::Committed),
        (offset::LAUNCH_TCB, TcbKind::Launch),
        (offset::CURRENT_TCB, TcbKind::Current),
    ] {
        for byte in [0, 6, 7] {
            let result = verify_altered(|report| report[at + byte] = 3);
            assert!(
                matches!(result, Err(VerifyError::TcbTooOld { kind: k, .. }) if k == kind),
                "{kind:?}: {result:?}"
            );
        }
        let result = verify_altered(|report| report[at + 3] = 1);
        assert_eq!(result, Err(VerifyError::TcbReserved(kind, Product::Genoa)));
    }
    let own = CHAIN.endorsement().tcb;
    let raised = policy().with_minimum_tcb(Product::Genoa, Tcb { microcode: own.microcode + 1, ..own });
    let result = verify(&common::report(&BOUND), &raised);
    assert!(matches!(result, Err(VerifyError::TcbTooOld { kind: TcbKind::Reported, .. })), "{result:?}");
}

#[test]
fn b2_a_lowered_minimum_is_named_in_the_verdict() {
    let own = CHAIN.endorsement().tcb;
    let lowered = policy().with_minimum_tcb(Product::Genoa, Tcb { snp: own.snp - 1, ..own });
    let verdict = verify(&common::report(&BOUND), &lowered).unwrap();
    assert!(verdict.relaxed.contains(&Relaxed::MinimumTcb(Product::Genoa)));
    assert!(verdict.lines()[2].contains("minimum TCB of Genoa lowered"));
    let raised = policy().with_minimum_tcb(Product::Genoa, own);
    let verdict = verify(&common::report(&BOUND), &raised).unwrap();
    assert!(!verdict.relaxed.contains(&Relaxed::MinimumTcb(Product::Genoa)));
}

#[test]
fn b3_each_weakness_of_guest_policy_or_platform_is_refused() {
    use {GuestPolicy as G, PlatformInfo as P, Weakness as W};
    let cases = [
        (offset::POLICY, G::DEBUG, W::Debug),
        (offset::POLICY, G::MIGRATE_MA, W::Migration),
        (offset::REPORT_ID_MA, 1, W::Migration),
        (offset::POLICY, G::SMT, W::Smt),
        (offset::PLATFORM_INFO, P::SMT_EN, W::Smt),
        (offset::POLICY, G::SINGLE_SOCKET, W::SeveralSockets),
        (offset::POLICY, G::CXL_ALLOW, W::Cxl),
        (offset::POLICY, G::MEM_AES_256_XTS, W::Aes128),
        (offset::POLICY, G::RAPL_DIS, W::Rapl),
        (offset::PLATFORM_INFO, P::RAPL_DIS, W::Rapl),
        (offset::POLICY, G::CIPHERTEXT_HIDING, W::VisibleCiphertext),
        (offset::PLATFORM_INFO, P::CIPHERTEXT_HIDING_DRAM_EN, W::VisibleCiphertext),
        (offset::PLATFORM_INFO, P::ALIAS_CHECK_COMPLETE, W::UncheckedAliases),
        (offset::POLICY, 1, W::OldFirmware),
        (offset::POLICY, 1 << 8, W::OldFirmware),
        (offset::POLICY, G::RESERVED_ONE, W::UnknownPolicyBits),
        (offset::HOST_DATA, 1, W::HostData),
        (offset::HOST_DATA + 24, 1 << 63, W::HostData),
        (offset::ID_KEY_DIGEST, 1, W::IdKey),
        (offset::AUTHOR_KEY_DIGEST, 1, W::IdKey),
        (offset::GUEST_SVN, 1, W::IdKey),
        (offset::FAMILY_ID, 1, W::IdKey),
        (offset::IMAGE_ID + 8, 1 << 63, W::IdKey),
    ];
    for (at, bits, weakness) in cases {
        let altered = altered_report(&BOUND, flip(at, bits));
        assert_eq!(verify(&altered, &policy()), Err(VerifyError::Weak(weakness)), "{at:#x} ^ {bits:#x}");
        // Its relaxation accepts exactly that; what has none is refused whatever is relaxed.
        let all = Relaxation::ALL.into_iter().fold(policy(), Policy::with_relaxation);
        match weakness.relaxation() {
            Some(relaxation) => {
                let verdict = verify(&altered, &policy().with_relaxation(relaxation)).unwrap();
                assert!(verdict.relaxed.contains(&Relaxed::Granted(relaxation)));
                assert!(verdict.lines()[2].contains(relaxation.name()));
            }
            None => assert_eq!(verify(&altered, &all), Err(VerifyError::Weak(weakness))),
        }
    }
    for bit in 26..64 {
        let result = verify_altered(flip(offset::POLICY, 1 << bit));
        assert_eq!(result, Err(VerifyError::Weak(W::UnknownPolicyBits)), "policy bit {bit}");
    }
    // The firmware's own version: build, minor, major.
    for at in [offset::COMMITTED_VERSION, offset::CURRENT_VERSION] {
        for version in [[41, 54, 1], [255, 255, 0]] {
            assert_eq!(verify_altered(set(at, &version)), Err(VerifyError::Weak(W::OldFirmware)));
        }
    }
    assert!(
        verify_altered(flip(offset::POLICY, G::PAGE_SWAP_DISABLE)).is_ok(),
        "a further restriction is welcome"
    );
}

#[test]
fn b3_reports_for_other_privilege_levels_are_refused() {
    for vmpl in [1, 2, 3, u32::MAX] {
        let result = verify_altered(set(offset::VMPL, &vmpl.to_le_bytes()));
        assert_eq!(result, Err(VerifyError::Vmpl(vmpl)));
    }
}

#[test]
fn b3_an_id_block_counts_only_with_listed_keys() {
    let digest = |byte| Digest::try_from([byte; 48]).unwrap();
    let with_id_block = |report: &mut [u8; LEN]| {
        set(offset::ID_KEY_DIGEST, &[7; 48])(report);
        set(offset::AUTHOR_KEY_DIGEST, &[8; 48])(report);
        set(offset::KEY_INFO, &[1])(report);
        set(offset::GUEST_SVN, &[3])(report);
    };
    let report = altered_report(&BOUND, with_id_block);
    assert!(verify(&report, &policy().with_id_keys(vec![digest(7), digest(8)])).is_ok());
    for keys in [vec![], vec![digest(7)], vec![digest(8)]] {
        let result = verify(&report, &policy().with_id_keys(keys));
        assert_eq!(result, Err(VerifyError::Weak(Weakness::IdKey)));
    }
}

#[test]
fn b6_versions_algorithms_and_reserved_bytes_that_are_unknown_are_refused() {
    for version in [0, 1, 6, 7, u32::MAX] {
        let result = verify_altered(set(offset::VERSION, &version.to_le_bytes()));
        assert_eq!(result, Err(VerifyError::Report(ReportError::Version(version))));
    }
    for algorithm in [0, 2, u32::MAX] {
        let result = verify_altered(set(offset::SIGNATURE_ALGO, &algorithm.to_le_bytes()));
        assert_eq!(result, Err(VerifyError::Report(ReportError::SignatureAlgorithm(algorithm))));
    }
    // MASK_CHIP_KEY; SIGNING_KEY reserved and none; bits beyond.
    for (key_info, error) in [
        (0b10, ReportError::NotSigned),
        (2 << 2, ReportError::NotSigned),
        (7 << 2, ReportError::NotSigned),
        (1 << 5, ReportError::Reserved(offset::KEY_INFO)),
    ] {
        let result = verify_altered(set(offset::KEY_INFO, &u32::to_le_bytes(key_info)));
        assert_eq!(result, Err(VerifyError::Report(error)));
    }
    for at in [0x4C, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, SIGNED_LEN - 1] {
        let result = verify_altered(|report| report[at] = 1);
        assert_eq!(result, Err(VerifyError::Report(ReportError::Reserved(at))));
    }
    // What version 5 gave a name to is still reserved in version 4, and the CPUID fields in version 2.
    let result = verify_altered(|report| {
        set(offset::VERSION, &[4])(report);
        set(offset::LAUNCH_MIT_VECTOR, &[1])(report);
    });
    assert_eq!(result, Err(VerifyError::Report(ReportError::Reserved(offset::LAUNCH_MIT_VECTOR))));
    let result = verify_altered(set(offset::VERSION, &[2]));
    assert_eq!(result, Err(VerifyError::Report(ReportError::Reserved(offset::CPUID_FAMILY))));
    // The signature's padding is not signed, so it must be checked.
    let mut report = common::report(&BOUND);
    report[LEN - 1] = 1;
    assert_eq!(verify(&report, &policy()), Err(VerifyError::Report(ReportError::Reserved(LEN - 1))));
}

#[test]
fn b7_no_measurement_but_the_listed_one_is_accepted() {
    for at in 0..48 {
        let result = verify_altered(|report| report[offset::MEASUREMENT + at] ^= 0x80);
        assert!(matches!(result, Err(VerifyError::LaunchDigest(_))), "byte {at}");
    }
    let zeros = verify_altered(set(offset::MEASUREMENT, &[0; 48]));
    assert_eq!(zeros, Err(VerifyError::LaunchDigest("00".repeat(48))));
}

#[test]
fn b8_the_report_names_the_chip_and_product_of_its_certificate() {
    for at in [0, 31, 63] {
        let result = verify_altered(|report| report[offset::CHIP_ID + at] ^= 1);
        assert_eq!(result, Err(VerifyError::HardwareId), "byte {at}");
    }
    assert_eq!(verify_altered(set(offset::CHIP_ID, &[0; 64])), Err(VerifyError::ChipIdMasked));
    let turin = verify_altered(set(offset::CPUID_FAMILY, &[0x1A, 0x02, 0x01]));
    let mismatch = VerifyError::ProductMismatch { report: Product::Turin, certificate: "Genoa".into() };
    assert_eq!(turin, Err(mismatch));
    let unknown = verify_altered(set(offset::CPUID_FAMILY, &[0x1B, 0x02, 0x01]));
    assert_eq!(unknown, Err(VerifyError::UnknownChip { family: 0x1B, model: 2 }));
}

#[test]
fn b8_a_key_of_one_type_does_not_sign_for_another() {
    let vlek = altered_report(&BOUND, set(offset::KEY_INFO, &[0b100]));
    assert_eq!(verify(&vlek, &policy()), Err(VerifyError::VlekNotAllowed));
    let allowed = policy().with_relaxation(Relaxation::Vlek);
    // No VLEK in the table, then the VCEK in its place, then a signing key in the VCEK's place.
    assert_eq!(verify(&vlek, &allowed), Err(VerifyError::NoEndorsement));
    let table = certificate_table::encode(&[
        (certificate_table::VLEK, CHAIN.vcek_der()),
        (certificate_table::ASK, CHAIN.ask_der()),
    ]);
    let result = verify_unbound(&vlek, &table, &allowed, now());
    assert!(matches!(result, Err(VerifyError::KeyType(_))), "{result:?}");
    let table = certificate_table::encode(&[(certificate_table::VCEK, CHAIN.ask_der())]);
    let result = verify_unbound(&common::report(&BOUND), &table, &policy(), now());
    assert!(matches!(result, Err(VerifyError::KeyType(_))), "{result:?}");
}

#[test]
fn b9_expired_or_not_yet_valid_endorsements_are_refused() {
    let endorsement =
        |from, until| Endorsement { not_before: from, not_after: until, ..CHAIN.endorsement().clone() };
    for (from, until, expired) in
        [(now() - 3 * DAY, now() - DAY, true), (now() + DAY, now() + 3 * DAY, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        CHAIN.save(folder.path()).unwrap();
        let chain = Chain::load(folder.path()).unwrap().reissue(endorsement(from, until)).unwrap();
        let mut report = chain.unsigned_report(&BOUND, &common::LAUNCH_DIGEST);
        chain.sign(&mut report).unwrap();
        let result = verify_unbound(&report, &chain.certificate_table(), &policy(), now());
        let Err(VerifyError::Certificate { role: Role::EndorsementKey, problem }) = result else {
            panic!("{result:?}");
        };
        assert_eq!(matches!(problem, CertificateProblem::Expired(_)), expired, "{problem}");
        assert_eq!(matches!(problem, CertificateProblem::NotYetValid(_)), !expired, "{problem}");
    }
}

#[test]
fn b9_revocation_lists_count_while_they_are_genuine_and_current() {
    let report = common::report(&BOUND);
    let with_list = |der: &[u8]| verify(&report, &policy().with_revocation_list(der).unwrap());

    let empty = CHAIN.revocation_list(false, now() - DAY, now() + DAY).unwrap();
    let verdict = with_list(&empty).unwrap();
    assert!(verdict.checked.contains(&Check::Revocation));
    assert!(!verdict.relaxed.contains(&Relaxed::NoRevocationList));

    let revoked = CHAIN.revocation_list(true, now() - DAY, now() + DAY).unwrap();
    let result = with_list(&revoked);
    let expected = VerifyError::Certificate { role: Role::Ask, problem: CertificateProblem::Revoked };
    assert_eq!(result, Err(expected));

    for (from, until) in [(now() - 3 * DAY, now() - DAY), (now() + DAY, now() + 3 * DAY)] {
        let list = CHAIN.revocation_list(false, from, until).unwrap();
        assert_eq!(with_list(&list), Err(VerifyError::Revocation(RevocationProblem::Dates)));
    }

    let mut forged = empty.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(with_list(&forged), Err(VerifyError::Revocation(RevocationProblem::Signature)));
    let malformed = policy().with_revocation_list(&empty[1..]).unwrap_err();
    assert_eq!(malformed, VerifyError::Revocation(RevocationProblem::Malformed));
}

#[test]
fn b10_without_the_root_in_the_policy_a_model_is_refused_by_name() {
    let policy =
        Policy::accepting(NonEmpty::from(common::image(common::LAUNCH_DIGEST, common::MANIFEST_DIGEST)));
    assert_eq!(verify(&common::report(&BOUND), &policy), Err(VerifyError::DevelopmentRootNotGiven));
}

#[test]
fn b10_the_chain_of_another_model_is_refused() {
    // The other chain has the same names, so it takes the signatures to tell them apart.
    let other = Chain::generate(now()).unwrap();
    let mut report = other.unsigned_report(&BOUND, &common::LAUNCH_DIGEST);
    other.sign(&mut report).unwrap();
    let result = verify_unbound(&report, &other.certificate_table(), &policy(), now());
    let forged = VerifyError::Certificate { role: Role::Ask, problem: CertificateProblem::Signature };
    assert_eq!(result, Err(forged));
}

#[test]
fn b10_a_signing_key_is_no_root() {
    let policy = policy().with_development_root(CHAIN.ask_der());
    let result = verify(&common::report(&BOUND), &policy);
    assert!(matches!(result, Err(VerifyError::UnknownRoot(_))), "{result:?}");
}

#[test]
fn b12_a_missing_or_malformed_table_is_refused() {
    let report = common::report(&BOUND);
    let verify = |table: &[u8]| verify_unbound(&report, table, &policy(), now());
    assert_eq!(verify(&[]), Err(VerifyError::NoEndorsement));
    assert!(matches!(verify(&[1; 100]), Err(VerifyError::CertificateTable(_))));
    let no_ask = certificate_table::encode(&[(certificate_table::VCEK, CHAIN.vcek_der())]);
    assert!(matches!(verify(&no_ask), Err(VerifyError::UnknownRoot(_))));
    let garbage = certificate_table::encode(&[(certificate_table::VCEK, &[0x30, 0x00])]);
    let malformed =
        VerifyError::Certificate { role: Role::EndorsementKey, problem: CertificateProblem::Malformed };
    assert_eq!(verify(&garbage), Err(malformed));
}

#[test]
fn a_chain_survives_being_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("chain");
    CHAIN.save(&folder).unwrap();
    let loaded = Chain::load(&folder).unwrap();
    assert_eq!(loaded.certificate_table(), CHAIN.certificate_table());
    assert_eq!(loaded.vcek_scalar().unwrap(), CHAIN.vcek_scalar().unwrap());
    assert_eq!((loaded.chip_id(), loaded.endorsement().tcb), (CHAIN.chip_id(), CHAIN.endorsement().tcb));

    std::fs::write(folder.join("vcek.key.pem"), "no key").unwrap();
    let error = Chain::load(&folder).err().unwrap().to_string();
    assert!(error.contains("vcek.key.pem"), "{error}");
    std::fs::remove_file(folder.join("vcek.key.pem")).unwrap();
    assert!(matches!(Chain::load(&folder), Err(DevelopmentError::File { .. })));
}

#[test]
fn chains_for_every_product_verify() {
    let genoa = CHAIN.endorsement();
    let mut turin_chip = [0; 64];
    turin_chip[..8].copy_from_slice(&genoa.chip_id[..8]);
    let turin = Endorsement {
        product: Product::Turin,
        tcb: Tcb { fmc: 1, boot_loader: 1, tee: 1, snp: 4, microcode: 0x51 },
        chip_id: turin_chip,
        ..genoa.clone()
    };
    let milan = Endorsement { product: Product::Milan, ..genoa.clone() };
    // One root serves every product.
    let folder = tempfile::tempdir().unwrap();
    CHAIN.save(folder.path()).unwrap();
    for endorsement in [turin, milan] {
        let chain = Chain::load(folder.path()).unwrap().reissue(endorsement).unwrap();
        let mut report = chain.unsigned_report(&BOUND, &common::LAUNCH_DIGEST);
        chain.sign(&mut report).unwrap();
        let policy = policy().with_relaxation(Relaxation::Milan);
        let verdict = verify_unbound(&report, &chain.certificate_table(), &policy, now()).unwrap();
        assert_eq!((verdict.product, verdict.tcb), (chain.endorsement().product, chain.endorsement().tcb));
    }
}
