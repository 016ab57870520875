//! The peak of 8-bit integer multiplication, against which prefill is measured on a host.
use super::Isa;
use crate::workers::Workers;
use std::time::Instant;

const ROUNDS: usize = 2_000_000;
/// Independent sums, so that the throughput of the multiplications counts and not their latency.
const SUMS: usize = 12;

/// Multiplications and additions of 8-bit integers per second that all workers reach together on registers, the best
/// of several tries; `None` for [`Isa::Plain`], and without the instructions.
#[must_use]
pub fn int8_operations_per_second(isa: Isa, workers: &impl Workers) -> Option<f64> {
    // What a worker does, and the bytes that it multiplies in each of its sums.
    let (work, width): (fn(), usize) = match isa {
        _ if !isa.is_supported() => return None,
        Isa::Plain => return None,
        // SAFETY: the processor supports the instructions, as was checked in the first arm.
        Isa::Avx2 => (|| unsafe { x86::avx2() }, 32),
        // SAFETY: as above.
        Isa::Avx512 => (|| unsafe { x86::avx512() }, 64),
    };
    let once = |_| {
        let start = Instant::now();
        workers.run(&|_| work());
        (2 * width * SUMS * ROUNDS * workers.count()) as f64 / start.elapsed().as_secs_f64()
    };
    Some((0..4).map(once).fold(0.0, f64::max))
}

mod x86 {
    use super::{ROUNDS, SUMS};
    use core::arch::x86_64::*;
    use core::hint::black_box;

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2() {
        let mut sums = [_mm256_setzero_si256(); SUMS];
        let (a, b, ones) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(-5), _mm256_set1_epi16(1)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // The exclusive or makes each product depend on the sum, so that it is not computed once for all.
                let products = _mm256_maddubs_epi16(_mm256_xor_si256(a, *sum), b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn avx512() {
        let mut sums = [_mm512_setzero_si512(); SUMS];
        let (a, b) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(-5)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }
}
