//! QEMU's command line for the machines that an image runs on.

use attestation::manifest::{DeviceSlot, Manifest};
use attestation::report::GuestPolicy;
use image_builder::cpu::CpuType;
use snp_model::layout::Layout;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// QEMU for x86-64, as distributions name it.
pub const QEMU: &str = "qemu-system-x86_64";

/// What both machines have in common.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What was measured.
    pub manifest: &'a Manifest,
    /// The weights' file.
    pub weights: &'a Path,
    /// Where clients connect on this host.
    pub listen: SocketAddrV4,
    /// The guest's RAM.
    pub memory_mib: u32,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// CPU type.
    pub cpu: CpuType,
    /// Whether the model's time is that of counted instructions, on one thread, so that every run is the same.
    pub counted: bool,
    /// Path for a QMP socket.
    pub qmp: Option<&'a Path>,
}

/// A command line: arguments that are text, or paths that need not be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arguments(pub Vec<OsString>);

impl Arguments {
    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.extend([name.into(), value.into()]);
        self
    }

    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    /// The command as one can type it into a shell.
    pub fn to_shell(&self, program: &str) -> String {
        let mut line = program.to_owned();
        for argument in &self.0 {
            let argument = argument.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+@".contains(c);
            let option = argument.starts_with('-');
            line.push_str(if option { " \\\n  " } else { " " });
            if !argument.is_empty() && argument.chars().all(plain) {
                line.push_str(&argument);
            } else {
                line.push_str(&format!("'{}'", argument.replace('\'', r"'\''")));
            }
        }
        line
    }
}

impl Machine<'_> {
    /// The SNP model on any host: `kernel` is its ELF file, `bundle` what it starts.
    ///
    /// The model keeps private pages apart from shared ones, so it needs RAM for both and for itself.
    pub fn on_model(&self, kernel: &Path, bundle: &Path) -> Arguments {
        let memory = Layout::of(u64::from(self.memory_mib) << 20).machine_mib();
        let mut arguments = Arguments::default();
        arguments
            .option("-accel", if self.counted { "tcg,thread=single" } else { "tcg,thread=multi" })
            .option("-cpu", "max,+svm,phys-bits=52,+la57")
            .option("-machine", "q35,memory-backend=ram")
            // Only what the guest touches takes memory of this host.
            .option("-object", format!("memory-backend-ram,id=ram,size={memory}M,reserve=off"))
            .option("-m", format!("{memory}M"))
            .option("-smp", self.vcpus.to_string())
            .option("-kernel", kernel)
            .option("-initrd", bundle)
            // The model's own lines, which are the hypervisor's and not the guest's.
            .option("-serial", "file:/proc/self/fd/2")
            .option("-device", "isa-debug-exit,iobase=0xf4,iosize=4");
        if self.counted {
            arguments.option("-icount", "shift=1,sleep=off").option("-seed", "1");
        }
        self.common(&mut arguments);
        arguments
    }

    /// Real SEV-SNP through KVM: `image` is a ROM, or an IGVM file.
    ///
    /// Sources: QEMU `docs/system/i386/amd-memory-encryption.rst` and `qapi/qom.json` (`SevSnpGuestProperties`, 9.1),
    /// `docs/system/igvm.rst` (10.1): an IGVM file stands in place of `-bios`, and its guest policy in place of `policy`.
    pub fn on_snp(&self, image: &Path, is_igvm: bool) -> Arguments {
        let policy = GuestPolicy::CLOISTER.0;
        let igvm = if is_igvm { ",igvm-cfg=igvm0" } else { "" };
        let mut arguments = Arguments::default();
        arguments
            .option("-accel", "kvm")
            .option("-cpu", self.cpu.name())
            .option(
                "-machine",
                format!("q35,confidential-guest-support=sev0,memory-backend=ram1,vmport=off{igvm}"),
            )
            .option(
                "-object",
                format!(
                    "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy={policy:#x},kernel-hashes=off"
                ),
            )
            .option("-object", format!("memory-backend-memfd,id=ram1,size={}M,share=true,prealloc=false", self.memory_mib))
            .option("-m", format!("{}M", self.memory_mib))
            .option("-smp", self.vcpus.to_string());
        if is_igvm {
            let mut object = OsString::from("igvm-cfg,id=igvm0,file=");
            object.push(without_commas(image));
            arguments.option("-object", object);
        } else {
            arguments.option("-bios", image);
        }
        self.common(&mut arguments);
        arguments
    }

    fn common(&self, arguments: &mut Arguments) {
        let network = &self.manifest.network;
        let mask = u32::MAX << (32 - u32::from(network.prefix.clamp(1, 30)));
        let subnet = Ipv4Addr::from_bits(u32::from_be_bytes(network.address) & mask);
        let [guest, gateway] = [network.address, network.gateway].map(Ipv4Addr::from);
        let user = format!(
            "user,id=net,restrict=on,ipv6=off,net={subnet}/{},host={gateway},hostfwd=tcp:{}-{guest}:{}",
            network.prefix, self.listen, network.port
        );
        let mut drive = OsString::from("if=none,id=weights,format=raw,readonly=on,file=");
        drive.push(without_commas(self.weights));
        arguments
            .flag("-nodefaults")
            .flag("-no-user-config")
            .flag("-no-reboot")
            .option("-display", "none")
            // QEMU's standard output carries the guest's events and nothing else.
            .option("-chardev", "stdio,id=events,signal=off")
            .option("-device", format!("isa-debugcon,iobase={:#x},chardev=events", wire::event::PORT))
            .option("-netdev", user)
            .option("-device", device("virtio-net-pci,netdev=net,romfile=", self.manifest.machine.network))
            .option("-drive", drive)
            .option("-device", device("virtio-blk-pci,drive=weights", self.manifest.machine.weights));
        if let Some(path) = self.qmp {
            let mut socket = OsString::from("unix:");
            socket.push(without_commas(path));
            socket.push(",server=on,wait=off");
            arguments.option("-qmp", socket);
        }
    }
}

/// A virtio device as the guest expects it: modern only, by DMA to what the guest shares, on its measured slot.
fn device(kind: &str, slot: DeviceSlot) -> String {
    format!("{kind},bus=pcie.0,addr={:#x},disable-legacy=on,iommu_platform=on", slot.device)
}

/// QEMU reads `,,` as a comma inside a value.
fn without_commas(path: &Path) -> OsString {
    match path.to_str() {
        Some(text) => text.replace(',', ",,").into(),
        None => path.into(),
    }
}

#[cfg(test)]
#[path = "../../image-builder/tests/samples/mod.rs"]
mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut manifest = samples::manifest();
        manifest.machine.weights.device = 0x15;
        manifest
    }

    fn machine<'a>(manifest: &'a Manifest, weights: &'a Path) -> Machine<'a> {
        Machine {
            manifest,
            weights,
            listen: "127.0.0.1:8443".parse().unwrap(),
            memory_mib: 1024,
            vcpus: 2,
            cpu: CpuType::Genoa,
            counted: false,
            qmp: Some(Path::new("/run/q.sock")),
        }
    }

    /// The values that an option has, in their order.
    fn values<'a>(arguments: &'a Arguments, option: &str) -> Vec<&'a str> {
        let pairs = arguments.0.windows(2).filter(|pair| pair[0] == option);
        pairs.map(|pair| pair[1].to_str().unwrap()).collect()
    }

    #[test]
    fn the_model_gets_room_for_private_and_shared_pages() {
        let manifest = manifest();
        let arguments =
            machine(&manifest, Path::new("/w")).on_model(Path::new("/m.elf"), Path::new("/bundle"));
        assert_eq!(values(&arguments, "-m"), ["3336M"]);
        assert_eq!(values(&arguments, "-cpu"), ["max,+svm,phys-bits=52,+la57"]);
        assert_eq!(values(&arguments, "-kernel"), ["/m.elf"]);
        assert_eq!(values(&arguments, "-initrd"), ["/bundle"]);
        assert_eq!(values(&arguments, "-qmp"), ["unix:/run/q.sock,server=on,wait=off"]);
        assert!(values(&arguments, "-bios").is_empty());
    }

    #[test]
    fn b3_real_hardware_gets_the_whole_policy_and_a_measured_rom() {
        let manifest = manifest();
        let arguments = machine(&manifest, Path::new("/w")).on_snp(Path::new("/cloister.rom"), false);
        let [guest, memory] = values(&arguments, "-object")[..] else { panic!("{arguments:?}") };
        // ABI 1.55; reserved-one, single socket, AES-256-XTS, RAPL off, ciphertext hiding; no SMT, migration, debug, CXL.
        assert_eq!(
            guest,
            "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x1d20137,kernel-hashes=off"
        );
        assert_eq!(memory, "memory-backend-memfd,id=ram1,size=1024M,share=true,prealloc=false");
        let machine = "q35,confidential-guest-support=sev0,memory-backend=ram1,vmport=off";
        assert_eq!(values(&arguments, "-machine"), [machine]);
        assert_eq!(values(&arguments, "-cpu"), ["EPYC-Genoa"]);
        assert_eq!(values(&arguments, "-bios"), ["/cloister.rom"]);
        assert_eq!(values(&arguments, "-accel"), ["kvm"]);
    }

    #[test]
    fn an_igvm_file_takes_the_place_of_the_rom() {
        let manifest = manifest();
        let arguments = machine(&manifest, Path::new("/w")).on_snp(Path::new("/a,b.igvm"), true);
        let machine = "q35,confidential-guest-support=sev0,memory-backend=ram1,vmport=off,igvm-cfg=igvm0";
        assert_eq!(values(&arguments, "-machine"), [machine]);
        assert_eq!(values(&arguments, "-object")[2], "igvm-cfg,id=igvm0,file=/a,,b.igvm");
        assert!(values(&arguments, "-bios").is_empty());
    }

    #[test]
    fn a18_devices_are_those_of_the_manifest_and_no_others() {
        let manifest = manifest();
        let machine = machine(&manifest, Path::new("/models/a,b.gguf"));
        for arguments in
            [machine.on_model(Path::new("/m"), Path::new("/b")), machine.on_snp(Path::new("/r"), true)]
        {
            assert!(
                arguments.0.contains(&"-nodefaults".into())
                    && arguments.0.contains(&"-no-user-config".into())
            );
            let devices = values(&arguments, "-device");
            let slot = "disable-legacy=on,iommu_platform=on";
            let devices: Vec<_> = devices.into_iter().filter(|d| !d.starts_with("isa-debug-exit")).collect();
            assert_eq!(
                devices,
                [
                    "isa-debugcon,iobase=0xe9,chardev=events",
                    &format!("virtio-net-pci,netdev=net,romfile=,bus=pcie.0,addr=0x4,{slot}"),
                    &format!("virtio-blk-pci,drive=weights,bus=pcie.0,addr=0x15,{slot}"),
                ]
            );
            let user = "user,id=net,restrict=on,ipv6=off,net=10.0.2.0/24,host=10.0.2.2,\
                        hostfwd=tcp:127.0.0.1:8443-10.0.2.15:443";
            assert_eq!(values(&arguments, "-netdev"), [user]);
            let drive = "if=none,id=weights,format=raw,readonly=on,file=/models/a,,b.gguf";
            assert_eq!(values(&arguments, "-drive"), [drive]);
        }
    }

    #[test]
    fn the_operators_guide_shows_the_command_line_for_real_hardware() {
        let mut manifest = manifest();
        manifest.machine.weights.device = 5;
        let machine = Machine { qmp: None, ..machine(&manifest, Path::new("models/cloister-mini.gguf")) };
        let command = machine.on_snp(Path::new("out/cloister.rom"), false).to_shell(QEMU);
        let guide = include_str!("../../docs/OPERATORS.md");
        let [command, guide] = [&command, guide].map(|text| text.replace("\\\n  ", ""));
        assert!(guide.contains(&command), "{command}");
    }

    #[test]
    fn a_printed_command_can_be_typed() {
        let arguments = Arguments(["-bios", "/it's here", "-x", ""].map(OsString::from).into());
        assert_eq!(arguments.to_shell("qemu"), "qemu \\\n  -bios '/it'\\''s here' \\\n  -x ''");
    }
}
