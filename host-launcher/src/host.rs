//! What this host must have, checked before anything is started.

use crate::failure::Failure;
use crate::machine::QEMU;
use std::fs::OpenOptions;
use std::net::{SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

/// The first QEMU that starts SEV-SNP guests.
const QEMU_WITH_SNP: (u32, u32) = (9, 1);
/// The first QEMU that reads IGVM files.
const QEMU_WITH_IGVM: (u32, u32) = (10, 1);

/// What was found of QEMU.
#[derive(Debug)]
pub struct Qemu {
    /// Major and minor version.
    pub version: (u32, u32),
}

impl Qemu {
    /// Starts QEMU once to ask for its version.
    pub fn find() -> Result<Self, Failure> {
        let program = QEMU.to_owned();
        let asked = Command::new(QEMU).arg("--version").stdin(Stdio::null()).output();
        let output = asked.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Failure::NoQemu { program: program.clone() },
            _ => Failure::Qemu { program: program.clone(), source },
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = version_in(&text).ok_or_else(|| Failure::Qemu {
            program,
            source: io::Error::other("it does not say its version"),
        })?;
        Ok(Self { version })
    }
}

/// Major and minor version in QEMU's first line.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What SEV-SNP needs of a host. Kept apart from finding it out, so that every combination can be tested.
#[derive(Clone, Copy, Debug)]
pub struct SnpHost {
    /// QEMU's version, if there is one.
    pub qemu: Option<(u32, u32)>,
    /// `/dev/kvm` is there.
    pub kvm: bool,
    /// `/dev/kvm` can be opened by this user.
    pub kvm_access: bool,
    /// `/dev/sev` is there.
    pub sev: bool,
    /// `kvm_amd` was loaded with SEV-SNP.
    pub module: bool,
    /// Whether QEMU was built with IGVM, if the image is an IGVM file.
    pub igvm: Option<bool>,
}

impl SnpHost {
    /// Looks at this host, also for what an IGVM file needs if the image is one.
    pub fn look(is_igvm: bool) -> Self {
        // The object's name says what was built in; QEMU lists only those.
        let objects = || Command::new(QEMU).args(["-object", "help"]).stdin(Stdio::null()).output();
        let has_igvm =
            || objects().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("igvm-cfg"));
        let kvm = Path::new("/dev/kvm");
        let module = fs::read_to_string("/sys/module/kvm_amd/parameters/sev_snp");
        Self {
            qemu: Qemu::find().ok().map(|qemu| qemu.version),
            kvm: kvm.exists(),
            kvm_access: OpenOptions::new().read(true).write(true).open(kvm).is_ok(),
            sev: Path::new("/dev/sev").exists(),
            module: module.is_ok_and(|value| matches!(value.trim(), "Y" | "1")),
            igvm: is_igvm.then(has_igvm),
        }
    }

    /// Everything that is missing, each with what to do about it.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut need = |there: bool, text: String| {
            if !there {
                missing.push(text);
            }
        };
        let first = if self.igvm.is_some() { QEMU_WITH_IGVM } else { QEMU_WITH_SNP };
        let (major, minor) = first;
        let newer = match self.igvm {
            Some(_) => "or start the image's other container, cloister.rom",
            None => "Debian 12 has it in bookworm-backports, Ubuntu from 25.04",
        };
        match self.qemu {
            None => {
                need(false, format!("`{QEMU}` {major}.{minor} or later: install qemu-system-x86 ({newer})"))
            }
            Some((a, b)) => {
                need((a, b) >= first, format!("QEMU {major}.{minor} or later: this one is {a}.{b} ({newer})"))
            }
        }
        need(
            self.igvm != Some(false),
            "a QEMU built with IGVM (--enable-igvm; `qemu-system-x86_64 -object help` lists igvm-cfg), or the image's \
             other container, cloister.rom"
                .into(),
        );
        need(self.kvm, "/dev/kvm: turn on SVM in the firmware setup and load the module kvm_amd".into());
        need(
            self.kvm_access || !self.kvm,
            "the right to open /dev/kvm: add your user to the group kvm and log in again".into(),
        );
        need(
            self.sev,
            "/dev/sev: an EPYC of the 9004 series or later with SEV turned on in the firmware setup, and the module ccp"
                .into(),
        );
        need(
            self.module,
            "kvm_amd with SEV-SNP (/sys/module/kvm_amd/parameters/sev_snp is not Y): Linux 6.11 or later, SNP memory \
             (RMP) coverage and the IOMMU turned on in the firmware setup, and kvm_amd.sev_snp=1"
                .into(),
        );
        missing
    }

    /// Refuses a host on which something is missing.
    pub fn check(&self) -> Result<(), Failure> {
        let missing = self.missing();
        if missing.is_empty() { Ok(()) } else { Err(Failure::Host(missing)) }
    }
}

/// The address on which QEMU can listen; port 0 becomes a free one.
pub fn listen_address(address: SocketAddrV4) -> Result<SocketAddrV4, Failure> {
    let refused = |source| Failure::Listen { address, source };
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr()).map_err(refused)?;
    Ok(SocketAddrV4::new(*address.ip(), bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_qemu_prints() {
        assert_eq!(version_in("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"), Some((7, 2)));
        assert_eq!(version_in("QEMU emulator version 10.0.0"), Some((10, 0)));
        assert_eq!(version_in("command not found"), None);
    }

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let bare =
            SnpHost { qemu: None, kvm: false, kvm_access: false, sev: false, module: false, igvm: None };
        assert_eq!(bare.missing().len(), 4);
        let Err(error @ Failure::Host(_)) = bare.check() else { panic!() };
        for part in ["qemu-system-x86", "/dev/kvm", "/dev/sev", "sev_snp", "--platform model"] {
            assert!(error.to_string().contains(part), "{part} in {error}");
        }

        let ready =
            SnpHost { qemu: Some((9, 1)), kvm: true, kvm_access: true, sev: true, module: true, igvm: None };
        assert!(ready.check().is_ok());
        let old = SnpHost { qemu: Some((7, 2)), ..ready };
        assert!(old.missing()[0].contains("7.2"));
        let without_igvm = SnpHost { qemu: Some((10, 0)), igvm: Some(false), ..ready };
        assert_eq!(without_igvm.missing().len(), 2);
        assert!(without_igvm.missing()[0].contains("10.1") && without_igvm.missing()[1].contains("igvm-cfg"));
        assert!(SnpHost { qemu: Some((10, 1)), igvm: Some(true), ..ready }.check().is_ok());
        let no_right = SnpHost { kvm_access: false, ..ready };
        assert!(no_right.missing()[0].contains("group kvm"));
    }

    #[test]
    fn a_port_in_use_is_refused_and_port_0_is_replaced() {
        let free = listen_address("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(free.port(), 0);
        let _holder = TcpListener::bind(free).unwrap();
        let Err(Failure::Listen { address, .. }) = listen_address(free) else { panic!() };
        assert_eq!(address, free);
    }
}
