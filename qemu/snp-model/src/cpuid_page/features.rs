//! The processor itself: identity, instruction sets, state components, SEV.
//!
//! Each mask is what QEMU's EPYC types up to EPYC-Genoa may show of a register (`builtin_x86_defs` in
//! `target/i386/cpu.c`), less what `sev_snp_mask_cpuid_features` takes from an SNP guest. Bit names are the APM's
//! (volume 3, appendix E).

use super::{C_BIT, CpuidPage, Machine, Registers};

/// Bits `positions` of a register.
const fn bits(positions: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < positions.len() {
        mask |= 1 << positions[i];
        i += 1;
    }
    mask
}

/// `Fn0000_0001_ECX`: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, PCID, SSE4.1, SSE4.2, x2APIC, MOVBE, POPCNT, AES, XSAVE,
/// AVX, F16C, RDRAND. Not OSXSAVE: it mirrors CR4 and is clear at launch.
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30]);
/// `Fn0000_0001_ECX[31]`: a hypervisor is present.
const HYPERVISOR: u32 = 1 << 31;
/// `Fn0000_0001_ECX[21]`: KVM emulates the x2APIC whatever the processor has.
const X2APIC: u32 = 1 << 21;
const AVX: u32 = 1 << 28;
/// `Fn0000_0001_EDX`: FPU to FXSR, SSE and SSE2, without HTT, which topology decides.
const LEAF_1_EDX: u32 = 0x078B_FBFF;

/// `Fn0000_0007_EBX_x0`: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, AVX512F, AVX512DQ, RDSEED, ADX, SMAP,
/// AVX512IFMA, CLFLUSHOPT, CLWB, AVX512CD, SHA, AVX512BW, AVX512VL.
const LEAF_7_EBX: u32 = bits(&[0, 3, 5, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]);
const AVX512F: u32 = 1 << 16;
/// `Fn0000_0007_ECX_x0`: AVX512VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, LA57, RDPID.
const LEAF_7_ECX: u32 = bits(&[1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 16, 22]);
const PKU: u32 = 1 << 3;
const LA57: u32 = 1 << 16;
/// `Fn0000_0007_EDX_x0`: fast short REP MOV.
const LEAF_7_EDX: u32 = bits(&[4]);
/// `Fn0000_0007_EAX_x1`: AVX512_BF16.
const LEAF_7_1_EAX: u32 = bits(&[5]);

/// `Fn8000_0001_ECX`: LahfSahf, AltMovCr8, ABM, SSE4A, MisAlignSse, 3DNowPrefetch, OSVW, PerfCtrExtCore. Not SVM.
const LEAF_8000_0001_ECX: u32 = bits(&[0, 4, 5, 6, 7, 8, 9, 23]);
/// `Fn8000_0001_EDX`: SYSCALL, NX, MMXExt, FFXSR, 1 GB pages, RDTSCP, long mode, and the copies of `Fn0000_0001_EDX`.
const LEAF_8000_0001_EDX: u32 = bits(&[11, 20, 22, 25, 26, 27, 29]) | 0x0183_F3FF;
/// `Fn8000_0008_EBX`: CLZERO, RstrFpErrPtrs, WBNOINVD, IBPB, IBRS, STIBP, STIBP always on, SSBD, PSFD.
const LEAF_8000_0008_EBX: u32 = bits(&[0, 2, 9, 12, 14, 15, 17, 24, 28]);
/// `Fn8000_0021_EAX`: no nested data breakpoints, LFENCE serialises, null selector clears base, automatic IBRS.
const LEAF_8000_0021_EAX: u32 = bits(&[0, 2, 6, 8]);

/// `Fn8000_0008_EAX[7:0]`: width of a guest-physical address without the C-bit.
const PHYSICAL_BITS: u32 = 48;
/// `Fn8000_001F_EAX`: SEV, SEV-ES, SEV-SNP (bits 1, 3, 4), as QEMU sets them; `EBX[11:6]` is its reduced-phys-bits.
const SEV_FEATURES: u32 = bits(&[1, 3, 4]);
const REDUCED_PHYSICAL_BITS: u32 = 1;

/// "AuthenticAMD" in EBX, EDX, ECX.
const VENDOR: [u32; 3] =
    [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"enti"), u32::from_le_bytes(*b"cAMD")];

/// `Fn0000_000D_EBX_x0` at reset, when XCR0 is 1: the legacy area and the XSAVE header (APM volume 2, §11.5.2).
const XSAVE_AT_RESET: u32 = 0x240;

pub(super) fn fill(page: &mut CpuidPage, machine: Machine, raw: &mut impl FnMut(u32, u32) -> Registers) {
    let [ebx, edx, ecx] = VENDOR;
    page.push(0x0, 0, [0xD, ebx, ecx, edx]);

    let one = raw(0x1, 0);
    let seven = leaf_7(page, raw);
    page.push(
        0x1,
        0,
        [
            machine.signature.0,
            // CLFlush: 8 quadwords; topology adds the rest.
            8 << 8,
            one[2] & LEAF_1_ECX | HYPERVISOR | X2APIC,
            one[3] & LEAF_1_EDX,
        ],
    );
    // The APIC timer runs in every power state (`ARAT`).
    page.push(0x6, 0, [1 << 2, 0, 0, 0]);
    leaf_d(page, one[2], seven, raw);

    let [features, ..] = raw(0x8000_0021, 0);
    let features = features & LEAF_8000_0021_EAX;
    let highest = if features == 0 { 0x8000_001F } else { 0x8000_0021 };
    page.push(0x8000_0000, 0, [highest, ebx, ecx, edx]);
    page.push(0x8000_0021, 0, [features, 0, 0, 0]);

    let [_, _, ecx, edx] = raw(0x8000_0001, 0);
    page.push(0x8000_0001, 0, [machine.signature.0, 0, ecx & LEAF_8000_0001_ECX, edx & LEAF_8000_0001_EDX]);
    name(page, machine);
    for leaf in [0x8000_0005, 0x8000_0006] {
        page.push(leaf, 0, raw(leaf, 0));
    }
    let linear_bits = if seven[2] & LA57 == 0 { 48 } else { 57 };
    let [_, ebx, ..] = raw(0x8000_0008, 0);
    page.push(0x8000_0008, 0, [linear_bits << 8 | PHYSICAL_BITS, ebx & LEAF_8000_0008_EBX, 0, 0]);
    page.push(0x8000_001F, 0, [SEV_FEATURES, REDUCED_PHYSICAL_BITS << 6 | C_BIT, 0, 0]);
}

/// Structured extended features; returns those of subleaf 0.
fn leaf_7(page: &mut CpuidPage, raw: &mut impl FnMut(u32, u32) -> Registers) -> Registers {
    let [subleaves, ebx, ecx, edx] = raw(0x7, 0);
    let one = if subleaves == 0 { 0 } else { raw(0x7, 1)[0] & LEAF_7_1_EAX };
    let zero = [u32::from(one != 0), ebx & LEAF_7_EBX, ecx & LEAF_7_ECX, edx & LEAF_7_EDX];
    page.push(0x7, 0, zero);
    page.push(0x7, 1, [one, 0, 0, 0]);
    zero
}

/// The XSAVE area (APM volume 2, §11.5). Only components whose instructions the page offers are in it.
fn leaf_d(
    page: &mut CpuidPage,
    leaf_1_ecx: u32,
    leaf_7: Registers,
    raw: &mut impl FnMut(u32, u32) -> Registers,
) {
    let [x87, sse, avx, avx512, pkru] = [1 << 0, 1 << 1, 1 << 2, 0b111 << 5, 1 << 9];
    let mut components = x87 | sse;
    for (component, offered) in
        [(avx, leaf_1_ecx & AVX), (avx512, leaf_7[1] & AVX512F), (pkru, leaf_7[2] & PKU)]
    {
        if offered != 0 {
            components |= component;
        }
    }
    components &= raw(0xD, 0)[0];
    if components == 0 {
        return;
    }
    let mut area = XSAVE_AT_RESET;
    for index in (2..32).filter(|i| components >> i & 1 == 1) {
        let [size, offset, flags, _] = raw(0xD, index);
        page.push(0xD, index, [size, offset, flags, 0]);
        area = area.max(offset.saturating_add(size));
    }
    // QEMU states the first two for XCR0 = 1, XSS = 0: guests add up the rest themselves.
    page.push_for_xcr0(0xD, 0, 1, [components, XSAVE_AT_RESET, area, 0]);
    // XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES; no supervisor state. Every processor with SNP has XSAVEC and XSAVES,
    // and Linux ends itself on a page that has neither (`snp_cpuid_postprocess`). TCG has neither, so the page states
    // XSAVEC beyond what the processor has: a guest that uses it gets #UD.
    const XSAVEC: u32 = 1 << 1;
    let compaction = raw(0xD, 1)[0] & 0b1111 | XSAVEC;
    page.push_for_xcr0(0xD, 1, 1, [compaction, XSAVE_AT_RESET, 0, 0]);
}

/// The processor's name string, 48 bytes in three leaves, as QEMU names the type.
fn name(page: &mut CpuidPage, machine: Machine) {
    let mut text = [0; 48];
    let name = machine.signature.qemu_type().unwrap_or("EPYC");
    for (place, byte) in text.iter_mut().zip(b"AMD ".iter().chain(name.as_bytes()).chain(b" Processor")) {
        *place = *byte;
    }
    let (words, _) = text.as_chunks::<4>();
    for (leaf, words) in (0x8000_0002..).zip(words.chunks_exact(4)) {
        page.push(leaf, 0, core::array::from_fn(|i| u32::from_le_bytes(words[i])));
    }
}
