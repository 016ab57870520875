//! The defences that can be taken out, row by row of docs/SECURITY.md.

/// An image, or a client, without one defence.
pub struct Mutant {
    /// Its name, which begins with the row.
    pub name: &'static str,
    /// What is taken out.
    pub about: &'static str,
    /// The name of the lie that it is to fall to; `flood` for what is no lie.
    pub attack: &'static str,
    /// File, what it says exactly once, and what it says instead.
    pub changes: &'static [(&'static str, &'static str, &'static str)],
}

impl Mutant {
    /// Whether it is a client and not an image.
    pub fn is_client(&self) -> bool {
        self.changes.iter().any(|(file, ..)| file.starts_with("attestation/src/verifier/"))
    }
}

macro_rules! mutants {
    ($($name:literal $attack:literal $about:literal { $($file:literal: $from:literal => $to:literal)+ })*) => {
        /// All of them.
        pub const MUTANTS: &[Mutant] = &[$(Mutant {
            name: $name,
            about: $about,
            attack: $attack,
            changes: &[$(($file, $from, $to)),+],
        }),*];
    };
}

mutants! {
    "a1-no-opcode" "a1-wrong-code" "the comparison of #VC's exit code with the instruction" {
        "kernel/src/exceptions.rs":
            "if exception.error != EXIT_CPUID || exception.opcode != Some(OPCODE_CPUID) {" => "if false {"
    }
    "a1-no-opcode-here" "a1-injected-vc" "the comparison of #VC's exit code with the instruction" {
        "kernel/src/exceptions.rs":
            "if exception.error != EXIT_CPUID || exception.opcode != Some(OPCODE_CPUID) {" => "if false {"
    }
    "a2-ignores" "a2-int80" "the end of the VM at other vectors: the handler returns" {
        "kernel/src/machine/exceptions.rs":
            "    let vector = frame.vector as u8;\n" =>
            "    let vector = frame.vector as u8;\n    if vector != 29 {\n        return;\n    }\n"
    }
    "a3-any-feature" "a3-unknown-feature" "the allow-list of SEV_STATUS" {
        "kernel/src/snp/status.rs": "if value & !PERMITTED != 0 {" => "if false {"
    }
    "a3-no-snp" "a3-no-snp" "the demand for SEV-SNP, at the entry and after" {
        "kernel/src/machine/entry.s": "    and eax, 7\n    cmp eax, 7\n" => "    cmp eax, eax\n"
        "kernel/src/snp/status.rs": "if value & REQUIRED != REQUIRED {" => "if false {"
    }
    "a4-any-c-bit" "a4-host" "the comparison of the host's C-bit" {
        "kernel/src/snp/protocol.rs": "if u32::from(c_bit) != C_BIT {" => "if false {"
    }
    "a5-zeros" "a5-missing-leaf" "the end of the VM at an unknown CPUID leaf: it reads as zeros" {
        "kernel/src/snp/cpuid.rs":
            "        self.find(leaf, subleaf)\n            .ok_or(" =>
            "        self.find(leaf, subleaf)\n            .or(Some(Registers::default()))\n            .ok_or("
    }
    "a5-any-size" "a5-xsave-size" "the check of XSAVE sizes" {
        "kernel/src/snp/cpuid.rs":
            "if area.eax != size || area.ebx < XSAVE_BASE_BYTES || end > base.ecx {" => "if false {"
    }
    "a6-unchanged" "a6-unchanged" "the end of the VM when PVALIDATE changed nothing" {
        "kernel/src/memory/accept.rs":
            "            (0, true) => Self::Unchanged,\n" => "            (0, true) => Self::Done,\n"
    }
    "a6-rescinds-blindly" "a6-rescinded" "the end of the VM when taking a page's validation back changed nothing" {
        "kernel/src/machine/ghcb.rs": "if taken_back.code != 0 || taken_back.unchanged {" => "if taken_back.code != 0 {"
    }
    "a6-validates-again" "a6-remap" "the rule that a page is validated once: the handler validates what is missing" {
        "kernel/src/machine/exceptions.rs":
            "    let vector = frame.vector as u8;\n" =>
            "    let vector = frame.vector as u8;\n    if vector == 29 && frame.error == 0x404 {\n        unsafe { instructions::pvalidate(instructions::cr2() & !0xfff, false, true) };\n        return;\n    }\n"
    }
    "a7-shares-first" "a7-still-private" "PVALIDATE before the GHCB page is shared" {
        "kernel/src/machine/ghcb.rs":
            "    let taken_back = unsafe { instructions::pvalidate(page, false, false) };\n    if taken_back.code != 0 || taken_back.unchanged {\n        return Err(Fatal::new(Termination::Validation, page));\n    }\n" => ""
    }
    "a8-no-touch" "a8-stale-lines" "the touch of each page's first and last line" {
        "kernel/src/machine/memory.rs":
            ".rept 31; mov {0}, [{1} + touched];" => ".rept 31; mov {0}, [{1}];"
    }
    "a9-no-bitmap" "a9-not-valid" "the look at the GHCB's valid bitmap" {
        "kernel/src/snp/ghcb.rs": "if valid & bit(offset) == 0 {" => "if false {"
    }
    "a9-reads-twice" "a9-double-fetch" "the single read of SW_EXITINFO1: it is checked, then read again" {
        "kernel/src/snp/ghcb.rs":
            "        if info_1 as u32 != 0 {" => "        if info_1 as u32 != 0 || self.field(valid, EXIT_INFO_1)? as u32 != 0 {"
    }
    "a10-no-answer" "a10-little-memory" "the look at the answer to a page-state change" {
        "kernel/src/memory/accept.rs":
            ".map_err(|_| refused)?;" => ".map_err(|_| refused).ok();"
    }
    "a11-any-sequence" "a11-sequence" "the comparison of a reply's sequence number" {
        "kernel/src/snp/message.rs": "header[SEQUENCE] == sequence.to_le_bytes()\n        && " => ""
    }
    "a12-any-id" "a12-wrong-id" "the comparison of a device's PCI identification" {
        "kernel/src/virtio/transport.rs":
            "if !function.read(&mut io, pci::ID)?.is((kind as u32) << 16 | VENDOR) {" =>
            "if function.read(&mut io, pci::ID)?.is((kind as u32) << 31 | 1) {"
    }
    "a12-any-head" "a12-id-inside" "the check that a used entry names the head of a chain" {
        "kernel/src/virtio/queue.rs": "if id % u32::from(STRIDE) == 0 =>" => "if id > 0 || id == 0 =>"
    }
    "a12-no-generation" "a12-config-changes" "the comparison of configuration generations" {
        "kernel/src/virtio/transport.rs": "if self.generation()? != before {" => "if self.generation().is_err() || before > 255 {"
    }
    "a13-no-root" "a13-bit-flip" "the comparison of the weights' root" {
        "kernel/src/weights.rs": "root(file, workers) != Some(model.weights_root)" => "root(file, workers).is_none()"
    }
    "a14-believes" "a14-jumps" "the bounds on what one reading moves a clock" {
        "kernel/src/clock.rs":
            "reading.saturating_sub(self.last).min(MOST_STEP_MS)" => "reading.saturating_sub(self.last)"
        "service/src/clock.rs": "passed.min(LARGEST_STEP_MS)" => "passed"
    }
    "a14-stands-still" "a14-stopped" "the time that passes by looking at a clock that stands still" {
        "service/src/clock.rs": "if self.still == STILL_LOOKS {" => "if self.still == u32::MAX {"
    }
    "a15-no-test" "a15-stuck" "the health test of the noise source" {
        "kernel/src/entropy/health.rs":
            "if self.repetitions >= REPETITION_CUTOFF || self.same_as_first >= PROPORTION_CUTOFF {" => "if self.seen > WINDOW {"
    }
    "a16-any-count" "a16-twice" "the check that a CPU arrives once" {
        "kernel/src/cpus/pool.rs": "!cpu.arrived.swap(true, Ordering::AcqRel) =>" => "{ cpu.arrived.store(true, Ordering::Release); true } =>"
    }
    "a17-first-come" "flood" "making room by dropping who was idle longest" {
        "service/src/service.rs": "if claim == Claim::Generating {" => "if claim == Claim::Generating || id.0 > 0 {"
    }
    "a18-reads-fw-cfg" "a18-extra-devices" "the rule to read nothing but the measured devices: fw_cfg is read" {
        "kernel/src/main.rs":
            "    random::start()?;\n" =>
            "    random::start()?;\n    let _ = kernel::host::HostIo::port_read(&mut Host, 0x511, kernel::host::Width::Byte);\n"
    }
    "a18-walks-the-bus" "a18-extra-devices" "the rule to look at measured slots only: every slot is looked at" {
        "kernel/src/main.rs":
            "    random::start()?;\n" =>
            "    random::start()?;\n    for slot in (0..32).filter_map(kernel::pci::Function::new) {\n        let _ = slot.read(&mut Host, kernel::pci::ID);\n    }\n"
    }
    "a19-list-in-shared" "a19-scribble" "the rule that no list is kept in shared memory: the start of what is left is noted there" {
        "kernel/src/machine/shared.rs":
            "        let size = size.checked_next_multiple_of(4096)" =>
            "        let noted = unsafe { (self.start as *const u64).read_volatile() };\n        self.start = if noted != 0 { noted } else { self.start };\n        let size = size.checked_next_multiple_of(4096)"
        "kernel/src/machine/shared.rs":
            "        self.size -= size;\n" =>
            "        self.size -= size;\n        if self.size > 0 {\n            unsafe { (self.start as *mut u64).write_volatile(self.start) };\n        }\n"
    }
    "a20-no-wipe" "a20-search" "the wiping of freed memory, by the heap and by its owners" {
        "kernel/src/memory/heap.rs": "            wipe(block, layout.size());\n" => ""
        "service/src/wipe.rs":
            "    fn drop(&mut self) {\n        self.0.zeroize();\n" => "    fn drop(&mut self) {\n"
    }
    "a21-any-policy" "a21-debug-policy" "the verifier's look at the debug bit of the guest policy" {
        "attestation/src/verifier/appraisal.rs": "(Weakness::Debug, guest.has(G::DEBUG))," => "(Weakness::Debug, false),"
    }
}
