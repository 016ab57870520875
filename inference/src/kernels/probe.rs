//! What the machine can do at most, against which the engine is measured on a host.
use super::Isa;
use crate::workers::Workers;
use core::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 3_000_000;

/// Multiplications and additions of 8-bit integers per second that all workers reach together on registers, with sums
/// that do not wait for one another, the best of several tries; `None` for [`Isa::Plain`], and without the instructions.
#[must_use]
pub fn int8_operations_per_second(isa: Isa, workers: &impl Workers) -> Option<f64> {
    // What a worker does, and the bytes that it multiplies in each round.
    let (work, width): (fn(), usize) = match isa {
        _ if !isa.is_supported() => return None,
        Isa::Plain => return None,
        Isa::Avx2 => (x86::avx2, 32 * x86::AVX2_SUMS),
        Isa::Avx512 => (x86::avx512, 64 * x86::AVX512_SUMS),
    };
    let once = |_| {
        let start = Instant::now();
        workers.run(&|_| work());
        (2 * width * ROUNDS * workers.count()) as f64 / start.elapsed().as_secs_f64()
    };
    Some((0..4).map(once).fold(0.0, f64::max))
}

/// Bytes per second that all workers together read of this memory, which should be larger than any cache: the best of
/// several passes, with memory fetched ahead by several distances and by none.
#[must_use]
pub fn read_bytes_per_second(memory: &[u64], workers: &impl Workers) -> f64 {
    if !Isa::Avx2.is_supported() {
        return 0.0;
    }
    let part = memory.len() / workers.count();
    let pass = |ahead: usize| {
        let start = Instant::now();
        workers.run(&|worker| {
            // SAFETY: the processor has AVX2, as was checked.
            black_box(unsafe { x86::sum(&memory[worker * part..][..part], ahead) });
        });
        (part * workers.count() * 8) as f64 / start.elapsed().as_secs_f64()
    };
    [0, 1024, 2048, 4096, 8192, 0, 2048, 4096].map(pass).into_iter().fold(0.0, f64::max)
}

mod x86 {
    use super::ROUNDS;
    use core::arch::asm;
    use core::arch::x86_64::*;

    pub(super) const AVX2_SUMS: usize = 4;
    pub(super) const AVX512_SUMS: usize = 12;

    /// What AVX2 has in place of VPDPBUSD: products of bytes added in pairs, these in fours, and those to a sum.
    pub(super) fn avx2() {
        // SAFETY: arithmetic on registers that are named as overwritten. The caller has checked for AVX2.
        unsafe {
            asm!(
                "2:",
                "vpmaddubsw ymm4, ymm12, ymm13", "vpmaddubsw ymm5, ymm12, ymm13",
                "vpmaddubsw ymm6, ymm12, ymm13", "vpmaddubsw ymm7, ymm12, ymm13",
                "vpmaddwd ymm4, ymm4, ymm14", "vpmaddwd ymm5, ymm5, ymm14",
                "vpmaddwd ymm6, ymm6, ymm14", "vpmaddwd ymm7, ymm7, ymm14",
                "vpaddd ymm0, ymm0, ymm4", "vpaddd ymm1, ymm1, ymm5",
                "vpaddd ymm2, ymm2, ymm6", "vpaddd ymm3, ymm3, ymm7",
                "dec {rounds}", "jnz 2b",
                rounds = inout(reg) ROUNDS => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
                options(nomem, nostack),
            );
        }
    }

    pub(super) fn avx512() {
        // SAFETY: as above, with AVX-512 VNNI.
        unsafe {
            asm!(
                "2:",
                "vpdpbusd zmm0, zmm12, zmm13", "vpdpbusd zmm1, zmm12, zmm13", "vpdpbusd zmm2, zmm12, zmm13",
                "vpdpbusd zmm3, zmm12, zmm13", "vpdpbusd zmm4, zmm12, zmm13", "vpdpbusd zmm5, zmm12, zmm13",
                "vpdpbusd zmm6, zmm12, zmm13", "vpdpbusd zmm7, zmm12, zmm13", "vpdpbusd zmm8, zmm12, zmm13",
                "vpdpbusd zmm9, zmm12, zmm13", "vpdpbusd zmm10, zmm12, zmm13", "vpdpbusd zmm11, zmm12, zmm13",
                "dec {rounds}", "jnz 2b",
                rounds = inout(reg) ROUNDS => _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                out("zmm12") _, out("zmm13") _,
                options(nomem, nostack),
            );
        }
    }

    /// Adds in independent lanes, so that the loads alone decide how long it takes.
    #[target_feature(enable = "avx2")]
    pub(super) fn sum(memory: &[u64], ahead: usize) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for part in memory.as_chunks::<32>().0 {
            // SAFETY: 32 numbers are eight vectors; fetching ahead accesses no memory.
            unsafe {
                let part = part.as_ptr();
                for (i, sum) in sums.iter_mut().enumerate() {
                    if ahead > 0 && i % 2 == 0 {
                        _mm_prefetch::<_MM_HINT_T0>(part.cast::<i8>().wrapping_add(ahead + 32 * i));
                    }
                    *sum = _mm256_add_epi64(*sum, _mm256_loadu_si256(part.add(4 * i).cast()));
                }
            }
        }
        sums.into_iter().fold(0, |sum, lanes| sum.wrapping_add(_mm256_extract_epi64::<0>(lanes) as u64))
    }
}
