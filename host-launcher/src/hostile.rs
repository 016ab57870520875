//! What the launcher does for a hostile host that the SNP model plays: lies about the machine around the guest are told
//! in QEMU's command line, and one about the launch in the guest policy.

use crate::machine::Arguments;
use attestation::report::GuestPolicy;
use snp_model::hostile::{Lie, TRAP_SLOT};
use std::ffi::OsString;
use std::path::Path;

/// SNP ABI §4.3, bits of the guest policy.
const MIGRATE_MA: u64 = 1 << 18;
const DEBUG: u64 = 1 << 19;

/// One line for each lie.
pub fn list() -> String {
    let width = Lie::ALL.iter().map(|lie| lie.name().len()).max().unwrap_or(0);
    Lie::ALL.iter().map(|lie| format!("{:width$}  {}\n", lie.name(), lie.about())).collect()
}

/// Changes the command line of the SNP model for a lie that needs it. `file` is any file: it becomes an option ROM.
pub fn arrange(lie: Lie, arguments: &mut Arguments, file: &Path) {
    if lie.needs_random_exits() {
        let after_cpu = arguments.0.iter().position(|argument| argument == "-cpu").map(|at| at + 1);
        if let Some(cpu) = after_cpu.and_then(|at| arguments.0.get_mut(at)) {
            cpu.push(",-rdrand,-rdseed");
        }
    }
    if lie == Lie::ExtraDevices {
        let mut rom = OsString::from(format!("virtio-rng-pci,bus=pcie.0,addr={TRAP_SLOT:#x},romfile="));
        rom.push(file);
        let second = format!("virtio-serial-pci,bus=pcie.0,addr={:#x}", TRAP_SLOT + 1);
        let more: [(&str, OsString); 5] = [
            ("-device", rom),
            ("-device", second.into()),
            ("-fw_cfg", "name=opt/org.cloister/command-line,string=debug".into()),
            ("-smbios", "type=11,value=debug".into()),
            ("-append", "debug shell".into()),
        ];
        arguments.0.extend(more.into_iter().flat_map(|(option, value)| [option.into(), value]));
    }
}

/// The policy that the guest is launched with.
pub fn policy(lie: Option<Lie>) -> u64 {
    GuestPolicy::CLOISTER.0
        | match lie {
            Some(Lie::DebugPolicy) => DEBUG,
            Some(Lie::MigrationPolicy) => MIGRATE_MA,
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arranged(lie: Lie) -> Vec<OsString> {
        let mut arguments = Arguments(["-cpu", "max,+svm", "-m", "1"].map(OsString::from).into());
        arrange(lie, &mut arguments, Path::new("/m"));
        arguments.0
    }

    #[test]
    fn only_lies_about_the_machine_change_the_machine() {
        assert_eq!(arranged(Lie::Remap), ["-cpu", "max,+svm", "-m", "1"]);
        assert_eq!(arranged(Lie::RandomStuck)[1], "max,+svm,-rdrand,-rdseed");
        assert!(arranged(Lie::ExtraDevices).iter().any(|argument| argument == "-fw_cfg"));
    }

    #[test]
    fn only_a_lie_about_it_changes_the_policy() {
        assert_eq!(policy(None), GuestPolicy::CLOISTER.0);
        assert_eq!(policy(Some(Lie::Remap)), GuestPolicy::CLOISTER.0);
        assert_eq!(policy(Some(Lie::DebugPolicy)) ^ GuestPolicy::CLOISTER.0, 1 << 19);
        assert_eq!(policy(Some(Lie::MigrationPolicy)) ^ GuestPolicy::CLOISTER.0, 1 << 18);
    }

    #[test]
    fn every_lie_is_listed_on_a_line_of_its_own() {
        assert_eq!(list().lines().count(), Lie::ALL.len());
    }
}
