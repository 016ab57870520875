//! The model against guests of a few instructions: one keeps all the rules, each other breaks one of them.
//!
//! These run the freestanding hypervisor on QEMU, so they show what unit tests of the library cannot: that
//! the processor is held to the RMP, and that a violation ends the run with the line that says so.

use snp_model::{
    PAGE_BYTES,
    bundle::{Bundle, TcbVersions, VcekScalar},
    cpu_type::CpuSignature,
    layout::Layout,
};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

core::arch::global_asm!(include_str!("guests.s"), options(att_syntax));

/// Pages of the ROM; `guests.s` is written for its address.
const ROM_BYTES: usize = 4 * PAGE_BYTES;
const ROM_BASE: u32 = (ROM_BYTES as u32).wrapping_neg();
const MEMORY_MIB: u32 = 64;
/// A run takes a fraction of a second. This only keeps a broken model from hanging the tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// QEMU's exit status for a value that the model gives its debug-exit device.
const fn status(value: i32) -> i32 {
    value << 1 | 1
}
const TERMINATED: i32 = status(0x10);
const VIOLATION: i32 = status(0x11);

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        unsafe extern "C" {
            static guests: u8;
            static guests_start16: u8;
            static guests_end: u8;
            $(static $name: u8;)*
        }

        /// The guests of `guests.s`.
        #[allow(non_camel_case_types, reason = "they are labels")]
        #[derive(Clone, Copy)]
        enum Scenario { $($name),* }

        impl Scenario {
            /// Where its code is in the ROM.
            fn offset(self) -> usize {
                let label = match self { $(Self::$name => &raw const $name),* };
                label as usize - &raw const guests as usize
            }
        }
    };
}

scenarios! {
    asks_to_be_ended,
    touches_what_the_hypervisor_owns,
    touches_what_it_did_not_validate,
    validates_what_it_does_not_own,
    validates_twice,
    shares_what_is_still_valid,
    uses_a_ghcb_it_did_not_register,
    registers_a_private_ghcb,
    speaks_an_unknown_protocol,
    has_no_handler,
    handles_vc_in_32_bit_code,
    keeps_the_rules,
    runs_a_second_cpu,
    starts_a_cpu_by_init,
    takes_interrupts,
    starts_a_cpu_from_an_ordinary_page,
    starts_a_cpu_with_other_features,
    starts_a_cpu_without_svme,
    starts_a_cpu_of_another_vmpl,
    starts_two_cpus_from_one_vmsa,
    looks_into_a_vmsa_in_use,
    rescinds_a_vmsa_in_use,
    sleeps_for_ever,
    leaves_a_field_out,
    marks_a_field_that_means_nothing,
    leaves_the_c_bit_out_of_a_table_entry,
    flushes_what_it_changes,
    shares_without_a_flush,
    takes_back_without_a_flush,
    reads_private_memory_as_shared,
    reads_shared_memory_as_private,
    runs_code_from_shared_memory,
    reaches_for_devices_as_private,
    validates_through_a_shared_mapping,
}

/// A ROM that runs the scenario, with the metadata that OVMF has (QEMU `hw/i386/pc_sysfw_ovmf.c`).
fn rom(scenario: Scenario) -> Vec<u8> {
    const FOOTER: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
    const METADATA: [u8; 16] = guid(0xdc88_6566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
    const RESET_BLOCK: [u8; 16] = guid(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);

    let start = &raw const guests;
    let length = &raw const guests_end as usize - start as usize;
    // SAFETY: the linker put these bytes between the two labels, and they are never written.
    let code = unsafe { std::slice::from_raw_parts(start, length) };
    let mut rom = code.to_vec();
    rom[..4].copy_from_slice(&(ROM_BASE + scenario.offset() as u32).to_le_bytes());

    let mut metadata = b"ASEV".to_vec();
    let sections = [[0x10_2000_u32, 0x1_0000, 1], [0x10_1000, 0x1000, 2], [0x10_0000, 0x1000, 3]];
    for word in
        [16 + 12 * sections.len() as u32, 1, sections.len() as u32].iter().chain(sections.as_flattened())
    {
        metadata.extend(word.to_le_bytes());
    }
    let metadata_from_end = (ROM_BYTES - rom.len()) as u32;
    rom.extend(metadata);

    let mut table = Vec::new();
    for (data, guid) in [(metadata_from_end, METADATA), (0xFFFF_FFF0, RESET_BLOCK)] {
        table.extend(data.to_le_bytes());
        table.extend(22_u16.to_le_bytes());
        table.extend(guid);
    }
    table.extend((table.len() as u16 + 18).to_le_bytes());
    table.extend(FOOTER);
    assert!(rom.len() + table.len() + 0x20 <= ROM_BYTES, "the guests have outgrown their ROM");
    rom.resize(ROM_BYTES - 0x20 - table.len(), 0);
    rom.extend(table);

    // The reset vector: a near jump to the 16-bit code.
    rom.resize(ROM_BYTES - 16, 0);
    let to = &raw const guests_start16 as usize - start as usize;
    let distance = (to as u16).wrapping_sub(ROM_BYTES as u16 - 16 + 3);
    rom.push(0xE9);
    rom.extend(distance.to_le_bytes());
    rom.resize(ROM_BYTES, 0);
    rom
}

/// A GUID as it lies in memory: the first three parts little-endian.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

fn model() -> &'static PathBuf {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        image_builder::freestanding::build(image_builder::freestanding::Program::SnpModel).unwrap()
    })
}

/// How a run ended: QEMU's exit status, the model's last line, what came out of the event port.
struct Ending {
    status: Option<i32>,
    line: String,
    events: Vec<u8>,
}

/// How QEMU runs the CPUs of the machine.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// Each on a thread of its own, at the host's pace.
    Wall,
    /// One after the other, by counted instructions: every run is the same.
    Instructions,
}

/// What a guest runs on.
#[derive(Clone, Copy)]
struct Host {
    vcpus: u32,
    clock: Clock,
    strict: bool,
}

const HOST: Host = Host { vcpus: 1, clock: Clock::Wall, strict: true };
const LENIENT: Host = Host { strict: false, ..HOST };

fn run(scenario: Scenario, Host { vcpus, clock, strict }: Host) -> Ending {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let rom = rom(scenario);
    let bundle = Bundle {
        image: &rom,
        memory_mib: MEMORY_MIB,
        vcpus,
        signature: CpuSignature::of_qemu_type("EPYC-Genoa").unwrap(),
        policy: 0x3_0000,
        chip_id: [0; 64],
        tcb: TcbVersions { current: 0, reported: 0, committed: 0, launch: 0 },
        vcek: VcekScalar([1; 48]),
        certificates: &[],
        scenario: "",
        strict,
    };
    fs::write(path("bundle"), bundle.encode().unwrap()).unwrap();
    let accelerator: &[&str] = match clock {
        Clock::Wall => &["-accel", "tcg,thread=multi"],
        Clock::Instructions => &["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-seed", "1"],
    };
    let machine_mib = Layout::of(u64::from(MEMORY_MIB) << 20).machine_mib();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(accelerator)
        .args([
            "-smp",
            &vcpus.to_string(),
            "-cpu",
            "max,+svm,phys-bits=52,+la57",
            "-machine",
            "q35,memory-backend=ram",
        ])
        .args(["-m", &format!("{machine_mib}M")])
        .args(["-object", &format!("memory-backend-ram,id=ram,size={machine_mib}M,reserve=off")])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .arg("-kernel")
        .arg(model())
        .arg("-initrd")
        .arg(path("bundle"))
        .args(["-serial", &format!("file:{}", path("log").display())])
        .args(["-device", "edu,bus=pcie.0,addr=5"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-chardev", &format!("file,id=events,path={}", path("events").display())])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=events"])
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-x86_64 is needed for this test");
    let started = Instant::now();
    let status = loop {
        match qemu.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if started.elapsed() > PATIENCE => {
                qemu.kill().unwrap();
                qemu.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let log = fs::read_to_string(path("log")).unwrap();
    let line = log.lines().last().unwrap_or_default().to_owned();
    Ending { status, line, events: fs::read(path("events")).unwrap() }
}

#[track_caller]
fn ends(scenario: Scenario, status: i32, line: &str) -> Ending {
    let ending = run(scenario, HOST);
    assert_eq!((ending.status, ending.line.as_str()), (Some(status), line));
    ending
}

#[track_caller]
fn violates(scenario: Scenario, why: &str) {
    violates_on(scenario, 1, why);
}

#[track_caller]
fn violates_on(scenario: Scenario, vcpus: u32, why: &str) {
    let ending = run(scenario, Host { vcpus, ..HOST });
    assert_eq!(ending.status, Some(VIOLATION), "{}", ending.line);
    let said = ending.line.strip_prefix("snp-model: violation: ").unwrap_or_default();
    assert!(said.contains(why), "{}", ending.line);
}

#[test]
fn a_guest_that_keeps_the_rules_reaches_its_end() {
    let ending = ends(Scenario::keeps_the_rules, TERMINATED, "snp-model: guest terminated: set 0 code 85");
    assert_eq!(ending.events, b"ABC");
}

#[test]
fn a_second_cpu_is_created_sleeps_wakes_and_is_destroyed() {
    for (vcpus, clock) in [(2, Clock::Wall), (8, Clock::Wall), (2, Clock::Instructions)] {
        let ending = run(Scenario::runs_a_second_cpu, Host { vcpus, clock, ..HOST });
        assert_eq!(ending.line, "snp-model: guest terminated: set 0 code 85", "{vcpus} vCPUs, {clock:?}");
        assert_eq!(ending.status, Some(TERMINATED));
    }
}

#[test]
fn a_cpu_that_is_created_for_it_starts_at_an_init() {
    let ending = run(Scenario::starts_a_cpu_by_init, Host { vcpus: 2, ..HOST });
    assert_eq!(ending.line, "snp-model: guest terminated: set 0 code 85");
}

#[test]
fn interrupts_of_the_apic_and_of_devices_arrive() {
    for clock in [Clock::Wall, Clock::Instructions] {
        let ending = run(Scenario::takes_interrupts, Host { clock, ..HOST });
        assert_eq!(ending.line, "snp-model: guest terminated: set 0 code 85", "{clock:?}");
    }
}

#[test]
fn a_cpu_starts_from_a_vmsa_page_that_vmrun_takes() {
    violates_on(Scenario::starts_a_cpu_from_an_ordinary_page, 2, "0x10c000 is not a VMSA page");
    violates_on(Scenario::starts_a_cpu_with_other_features, 2, "SEV_FEATURES 0x9, the launch 0x1");
    violates_on(Scenario::starts_a_cpu_without_svme, 2, "EFER.SVME is 0");
    violates_on(Scenario::starts_a_cpu_of_another_vmpl, 2, "for VMPL 1");
}

#[test]
fn a_vmsa_in_use_is_the_processors() {
    violates_on(Scenario::starts_two_cpus_from_one_vmsa, 3, "the VMSA at 0x10c000 is in use");
    violates_on(Scenario::looks_into_a_vmsa_in_use, 2, "private read at 0x10c000, the VMSA of a vCPU");
    violates_on(Scenario::rescinds_a_vmsa_in_use, 2, "PVALIDATE of 0x10c000, the VMSA of a vCPU");
}

#[test]
fn calls_come_with_the_fields_that_they_need_and_no_others() {
    violates(Scenario::leaves_a_field_out, "event 0x7b refused: MissingInput");
    violates(Scenario::marks_a_field_that_means_nothing, "the field at 0xc8 marked valid");
}

#[test]
fn a_changed_c_bit_is_followed_by_a_flush() {
    ends(Scenario::flushes_what_it_changes, TERMINATED, "snp-model: guest terminated: set 0 code 85");
    violates(Scenario::shares_without_a_flush, "0x600000 became shared and is mapped so");
    violates(Scenario::takes_back_without_a_flush, "0x600000 became private and is mapped so");
}

#[test]
fn page_tables_are_private_by_their_entries_too() {
    violates(Scenario::leaves_the_c_bit_out_of_a_table_entry, "the table at 0x105000 has no C-bit");
}

#[test]
fn a_lenient_model_forgives_what_hardware_may_forgive() {
    for scenario in [
        Scenario::leaves_a_field_out,
        Scenario::marks_a_field_that_means_nothing,
        Scenario::leaves_the_c_bit_out_of_a_table_entry,
        Scenario::shares_without_a_flush,
        Scenario::takes_back_without_a_flush,
    ] {
        let ending = run(scenario, LENIENT);
        assert_eq!(ending.line, "snp-model: guest terminated: set 0 code 85");
    }
}

#[test]
fn somebody_must_stay_awake() {
    violates(Scenario::sleeps_for_ever, "every vCPU sleeps");
}

#[test]
fn vc_reaches_a_32_bit_handler_with_its_error_code() {
    ends(Scenario::handles_vc_in_32_bit_code, TERMINATED, "snp-model: guest terminated: set 0 code 85");
}

#[test]
fn a_termination_request_names_set_and_code() {
    ends(Scenario::asks_to_be_ended, TERMINATED, "snp-model: guest terminated: set 3 code 7");
}

#[test]
fn memory_must_be_the_guests_and_validated() {
    violates(
        Scenario::touches_what_the_hypervisor_owns,
        "private write at 0x300000, a page that the hypervisor owns",
    );
    violates(Scenario::touches_what_it_did_not_validate, "#VC 0x404");
    violates(Scenario::validates_what_it_does_not_own, "PVALIDATE of 0x300000, which is not");
}

#[test]
fn a_page_is_validated_once_and_rescinded_before_it_is_shared() {
    violates(Scenario::validates_twice, "PVALIDATE of 0x300000 (Small): the page was validated before");
    violates(Scenario::shares_what_is_still_valid, "to Shared while the guest still holds it validated");
}

#[test]
fn the_ghcb_is_shared_and_registered() {
    violates(Scenario::uses_a_ghcb_it_did_not_register, "GHCB at 0x300000, which is not the registered one");
    violates(Scenario::registers_a_private_ghcb, "registration of 0x102000 as GHCB, which is a private page");
    violates(Scenario::speaks_an_unknown_protocol, "GHCB MSR request 0xff");
}

#[test]
fn vc_without_a_handler_is_a_shutdown() {
    violates(Scenario::has_no_handler, "shutdown: #VC 0x72");
}

#[test]
fn the_c_bit_must_agree_with_the_page() {
    violates(Scenario::reads_private_memory_as_shared, "shared read at 0x102000, which is Validated");
    violates(
        Scenario::reads_shared_memory_as_private,
        "private read at 0x400000, a page that the hypervisor owns",
    );
    violates(Scenario::runs_code_from_shared_memory, "shared instruction fetch at 0x400000");
    violates(
        Scenario::reaches_for_devices_as_private,
        "private read at 0xffe00000, where there is no memory",
    );
    violates(Scenario::validates_through_a_shared_mapping, "through a mapping without the C-bit");
}
