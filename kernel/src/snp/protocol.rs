//! The GHCB MSR protocol: what the guest and the host say to each other through MSR 0xC001_0130 alone.
//!
//! Source: GHCB specification (AMD 56421) rev. 2.03, §2.3.1. Used before the GHCB page exists, and for the last word.

use crate::fatal::{Fatal, OrFatal};
use crate::host::Alleged;
use crate::snp::cpuid::C_BIT;
use wire::termination::{REASON_SET, Termination};

/// The version of the GHCB protocol that the guest speaks; SEV-SNP needs version 2.
pub const VERSION: u16 = 2;

const SEV_INFO_RESPONSE: u64 = 0x001;
const SEV_INFO_REQUEST: u64 = 0x002;
const REGISTER_REQUEST: u64 = 0x012;
const REGISTER_RESPONSE: u64 = 0x013;
const PAGE_STATE_REQUEST: u64 = 0x014;
const PAGE_STATE_RESPONSE: u64 = 0x015;
const FEATURES_REQUEST: u64 = 0x080;
const FEATURES_RESPONSE: u64 = 0x081;
const TERMINATION_REQUEST: u64 = 0x100;

/// Low 12 bits: what kind of message it is.
const INFO: u64 = 0xfff;
/// The host serves SEV-SNP guests.
const FEATURE_SNP: u64 = 1;
/// The host creates vCPUs from VMSAs that the guest built.
const FEATURE_AP_CREATION: u64 = 1 << 1;

/// The GHCB MSR and `VMGEXIT`.
pub trait Msr {
    /// Writes the MSR, leaves to the host, and reads the MSR once.
    fn exchange(&mut self, request: u64) -> Alleged<u64>;
}

fn ask(msr: &mut impl Msr, request: u64, response: u64) -> OrFatal<u64> {
    msr.exchange(request)
        .when(|reply| reply & INFO == response)
        .ok_or(Fatal::new(Termination::GhcbProtocol, request & INFO))
}

/// Agrees on version 2 with a host that serves SEV-SNP, and checks that it sees the C-bit where the guest does. Whether it
/// creates vCPUs for guests.
pub fn negotiate(msr: &mut impl Msr) -> OrFatal<bool> {
    let info = ask(msr, SEV_INFO_REQUEST, SEV_INFO_RESPONSE)?;
    let (most, least, c_bit) = ((info >> 48) as u16, (info >> 32) as u16, (info >> 24) as u8);
    if !(least..=most).contains(&VERSION) {
        return Err(Fatal::new(Termination::GhcbProtocol, info));
    }
    if u32::from(c_bit) != C_BIT {
        return Err(Fatal::new(Termination::CBit, c_bit.into()));
    }
    let features = ask(msr, FEATURES_REQUEST, FEATURES_RESPONSE)?;
    if features >> 12 & FEATURE_SNP == 0 {
        return Err(Fatal::new(Termination::GhcbProtocol, features));
    }
    Ok(features >> 12 & FEATURE_AP_CREATION != 0)
}

/// Tells the host that the page at `gpa` becomes shared. The guest has taken back its validation before.
pub fn share_page(msr: &mut impl Msr, gpa: u64) -> OrFatal<()> {
    const SHARED: u64 = 2;
    let reply = ask(msr, SHARED << 52 | gpa | PAGE_STATE_REQUEST, PAGE_STATE_RESPONSE)?;
    if reply >> 32 == 0 { Ok(()) } else { Err(Fatal::new(Termination::GhcbProtocol, reply)) }
}

/// Registers the shared page at `gpa` as this vCPU's GHCB.
pub fn register(msr: &mut impl Msr, gpa: u64) -> OrFatal<()> {
    let reply = ask(msr, gpa | REGISTER_REQUEST, REGISTER_RESPONSE)?;
    if reply & !INFO == gpa { Ok(()) } else { Err(Fatal::new(Termination::GhcbProtocol, reply)) }
}

/// The request that ends the VM.
pub const fn termination(reason: Termination) -> u64 {
    TERMINATION_REQUEST | (REASON_SET as u64) << 12 | (reason as u64) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that gives these answers, one after the other.
    struct Script(Vec<u64>, Vec<u64>);

    impl Msr for Script {
        fn exchange(&mut self, request: u64) -> Alleged<u64> {
            self.0.push(request);
            Alleged::new(self.1.remove(0))
        }
    }

    fn info(most: u64, least: u64, c_bit: u64) -> u64 {
        most << 48 | least << 32 | c_bit << 24 | 1
    }

    fn negotiated(answers: &[u64]) -> Result<bool, Termination> {
        negotiate(&mut Script(vec![], answers.to_vec())).map_err(|fatal| fatal.reason)
    }

    #[test]
    fn version_2_is_agreed_on() {
        assert_eq!(negotiated(&[info(2, 1, 51), 1 << 12 | 0x81]), Ok(false));
        assert_eq!(negotiated(&[info(2, 1, 51), 3 << 12 | 0x81]), Ok(true), "creates vCPUs");
        assert_eq!(negotiated(&[info(1, 1, 51), 1 << 12 | 0x81]), Err(Termination::GhcbProtocol));
        assert_eq!(negotiated(&[info(4, 3, 51), 1 << 12 | 0x81]), Err(Termination::GhcbProtocol));
        assert_eq!(negotiated(&[info(2, 1, 51), 0x81]), Err(Termination::GhcbProtocol), "no SNP");
        assert_eq!(negotiated(&[info(2, 1, 51) + 1, 1 << 12 | 0x81]), Err(Termination::GhcbProtocol));
    }

    #[test]
    fn a4_a_host_with_another_c_bit_is_refused() {
        assert_eq!(negotiated(&[info(2, 1, 47), 1 << 12 | 0x81]), Err(Termination::CBit));
    }

    #[test]
    fn a9_a_wrong_answer_to_a_page_request_is_refused() {
        let gpa = 0x20_3000;
        let mut script = Script(vec![], vec![0x15]);
        assert_eq!(share_page(&mut script, gpa), Ok(()));
        assert_eq!(script.0, [2 << 52 | gpa | 0x14]);
        assert!(share_page(&mut Script(vec![], vec![1 << 32 | 0x15]), gpa).is_err());
        assert!(share_page(&mut Script(vec![], vec![0x14]), gpa).is_err());
        assert!(register(&mut Script(vec![], vec![gpa | 0x13]), gpa).is_ok());
        assert!(register(&mut Script(vec![], vec![(gpa + 0x1000) | 0x13]), gpa).is_err());
        assert!(register(&mut Script(vec![], vec![u64::MAX << 12 | 0x13]), gpa).is_err());
    }

    #[test]
    fn the_last_word_has_the_specified_form() {
        assert_eq!(termination(Termination::NotSnp), 0x0001_5100);
        assert_eq!(termination(Termination::StackOverflow), 0x0015_5100);
    }
}
