//! What an authentic report says, against the policy.

use super::{
    Image, Policy, Relaxation,
    chain::Endorsed,
    error::{TcbKind, VerifyError, Weakness},
};
use crate::report::{GuestPolicy, PlatformInfo, Report, Tcb};

/// The first firmware ABI that knows ciphertext hiding and checks for aliases.
const MINIMUM_ABI: (u8, u8) = (1, 55);

/// Appraises a report; gives the image that runs.
pub(super) fn appraise<'p>(
    report: &Report,
    endorsed: &Endorsed,
    policy: &'p Policy,
) -> Result<&'p Image, VerifyError> {
    let image = image(report, policy)?;
    if report.vmpl() != 0 {
        return Err(VerifyError::Vmpl(report.vmpl()));
    }
    check_chip(report, endorsed, policy)?;
    check_tcb(report, endorsed, policy)?;
    for weakness in weaknesses(report, policy) {
        if !weakness.relaxation().is_some_and(|relaxation| policy.relaxes(relaxation)) {
            return Err(VerifyError::Weak(weakness));
        }
    }
    Ok(image)
}

fn image<'p>(report: &Report, policy: &'p Policy) -> Result<&'p Image, VerifyError> {
    let measurement = report.measurement();
    policy
        .images
        .iter()
        .find(|image| image.launch_digests.iter().any(|digest| digest.as_bytes() == &measurement))
        .ok_or_else(|| VerifyError::LaunchDigest(hex::encode(measurement)))
}

fn check_chip(report: &Report, endorsed: &Endorsed, policy: &Policy) -> Result<(), VerifyError> {
    let chip_id = report.chip_id();
    let id = &chip_id[..endorsed.product.hardware_id_len()];
    match &policy.chips {
        Some(chips) if !chips.iter().any(|chip| chip.as_bytes() == id) => {
            Err(VerifyError::ChipNotListed(hex::encode(id)))
        }
        _ => Ok(()),
    }
}

/// Not only what is reported: what ran at launch could have planted something, and what is not committed can be
/// rolled back.
fn check_tcb(report: &Report, endorsed: &Endorsed, policy: &Policy) -> Result<(), VerifyError> {
    let product = endorsed.product;
    let minimum = policy.minimum_tcb(product, report.cpuid()).ok_or(VerifyError::NoMinimumTcb(product))?;
    let stated = [
        (TcbKind::Reported, report.reported_tcb()),
        (TcbKind::Committed, report.committed_tcb()),
        (TcbKind::Launch, report.launch_tcb()),
        (TcbKind::Current, report.current_tcb()),
    ];
    for (kind, bytes) in stated {
        let found = Tcb::from_bytes(product, bytes).ok_or(VerifyError::TcbReserved(kind, product))?;
        if !found.at_least(&minimum) {
            return Err(VerifyError::TcbTooOld { kind, found, minimum });
        }
    }
    Ok(())
}

/// Everything that is weaker than REQUIREMENTS B3 asks for.
fn weaknesses(report: &Report, policy: &Policy) -> impl Iterator<Item = Weakness> {
    use {GuestPolicy as G, PlatformInfo as P};
    let (guest, platform) = (report.policy(), report.platform_info());
    let (committed, current) = (report.committed_version(), report.current_version());
    let is_old = |(major, minor, _)| (major, minor) < MINIMUM_ABI;

    let checks = [
        (Weakness::Debug, guest.has(G::DEBUG)),
        // A guest without a migration agent has all ones as the agent's report id (AMD 56860, table 22).
        (Weakness::Migration, guest.has(G::MIGRATE_MA) || report.report_id_ma() != [0xFF; 32]),
        (Weakness::UnknownPolicyBits, guest.0 & !G::KNOWN != 0 || !guest.has(G::RESERVED_ONE)),
        (Weakness::Smt, guest.has(G::SMT) || platform.has(P::SMT_EN)),
        (Weakness::SeveralSockets, !guest.has(G::SINGLE_SOCKET)),
        (Weakness::Cxl, guest.has(G::CXL_ALLOW)),
        (Weakness::Aes128, !guest.has(G::MEM_AES_256_XTS)),
        (Weakness::Rapl, !guest.has(G::RAPL_DIS) || !platform.has(P::RAPL_DIS)),
        (
            Weakness::VisibleCiphertext,
            !guest.has(G::CIPHERTEXT_HIDING) || !platform.has(P::CIPHERTEXT_HIDING_DRAM_EN),
        ),
        (Weakness::UncheckedAliases, !platform.has(P::ALIAS_CHECK_COMPLETE)),
        (Weakness::OldFirmware, guest.abi() < MINIMUM_ABI || is_old(committed) || is_old(current)),
        (Weakness::HostData, report.host_data() != [0; 32]),
        (Weakness::IdKey, !id_block_is_known(report, policy)),
    ];
    checks.into_iter().filter_map(|(weakness, present)| present.then_some(weakness))
}

/// Without an ID block everything that comes from one is zero; with one, its key must be listed.
fn id_block_is_known(report: &Report, policy: &Policy) -> bool {
    let listed = |digest: [u8; 48]| policy.id_keys.iter().any(|key| key.as_bytes() == &digest);
    let (id_key, author_key) = (report.id_key_digest(), report.author_key_digest());
    let author_is_known =
        if report.author_key_enabled() { listed(author_key) } else { author_key == [0; 48] };
    if id_key == [0; 48] {
        author_key == [0; 48]
            && !report.author_key_enabled()
            && report.family_id() == [0; 16]
            && report.image_id() == [0; 16]
            && report.guest_svn() == 0
    } else {
        listed(id_key) && author_is_known
    }
}

/// The relaxations that the policy grants, in the order of [`Relaxation::ALL`].
pub(super) fn granted(policy: &Policy) -> impl Iterator<Item = Relaxation> {
    Relaxation::ALL.into_iter().filter(|relaxation| policy.relaxes(*relaxation))
}
