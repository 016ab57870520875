//! The vectors of processors with AVX2, FMA and F16C: every processor that has SEV-SNP. A vector is two halves.
use super::format::Format;
use super::simd::{Block, Simd, array};
use core::arch::x86_64::*;

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

type Chosen = Avx2;

/// Eight lanes to one.
#[inline(always)]
pub(super) unsafe fn sum_of_eight(a: __m256) -> f32 {
    // SAFETY: arithmetic only; the caller has the instructions.
    unsafe {
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
    }
}

#[inline(always)]
pub(super) unsafe fn largest_of_eight(a: __m256) -> f32 {
    // SAFETY: arithmetic only; the caller has the instructions.
    unsafe {
        let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
    }
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type B = [__m256i; 2];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> [__m256; 2] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(vector: [__m256; 2], at: *mut f32) {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            _mm256_storeu_ps(at, vector[0]);
            _mm256_storeu_ps(at.add(8), vector[1]);
        }
    }

    #[inline(always)]
    unsafe fn from_f16(at: *const u8) -> [__m256; 2] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            let halves = [_mm_loadu_si128(at.cast()), _mm_loadu_si128(at.add(16).cast())];
            [_mm256_cvtph_ps(halves[0]), _mm256_cvtph_ps(halves[1])]
        }
    }

    #[inline(always)]
    unsafe fn from_bf16(at: *const u8) -> [__m256; 2] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            array!(2, _mm256_setzero_ps(), half => {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(16 * half).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            })
        }
    }

    #[inline(always)]
    unsafe fn from_u8(values: [u8; 16]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let values = values.as_ptr();
            array!(2, _mm256_setzero_ps(), half => {
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(values.add(8 * half).cast())))
            })
        }
    }

    #[inline(always)]
    unsafe fn from_i8(at: *const u8) -> [__m256; 2] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            array!(2, _mm256_setzero_ps(), half => {
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(8 * half).cast())))
            })
        }
    }

    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn sub(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn div(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    unsafe fn max(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn min(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn abs(a: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        }
    }

    #[inline(always)]
    unsafe fn add_exponent(value: [__m256; 2], shifted: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            array!(2, value[0], half => {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted[half]));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value[half]), exponent))
            })
        }
    }

    #[inline(always)]
    unsafe fn sum(a: [__m256; 2]) -> f32 {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { sum_of_eight(_mm256_add_ps(a[0], a[1])) }
    }

    #[inline(always)]
    unsafe fn largest(a: [__m256; 2]) -> f32 {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { largest_of_eight(_mm256_max_ps(a[0], a[1])) }
    }

    #[inline(always)]
    unsafe fn quants(vector: [__m256; 2]) -> [i8; 16] {
        let mut quants = [0; 16];
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(vector[0]), _mm256_cvtps_epi32(vector[1]));
            // Packing works within halves of 128 bits, so the quarters come out in the order 0, 2, 1, 3.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(quants.as_mut_ptr().cast(), bytes);
        }
        quants
    }

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn store_bytes(bytes: [__m256i; 2], at: *mut u8) {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            _mm256_storeu_si256(at.cast(), bytes[0]);
            _mm256_storeu_si256(at.add(32).cast(), bytes[1]);
        }
    }

    #[inline(always)]
    unsafe fn and(a: [__m256i; 2], mask: u8) -> [__m256i; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let mask = _mm256_set1_epi8(mask as i8);
            [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)]
        }
    }

    #[inline(always)]
    unsafe fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn right(a: [__m256i; 2], bits: u32) -> [__m256i; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let bits = _mm_cvtsi32_si128(bits as i32);
            [_mm256_srl_epi16(a[0], bits), _mm256_srl_epi16(a[1], bits)]
        }
    }

    #[inline(always)]
    unsafe fn left(a: [__m256i; 2], bits: u32) -> [__m256i; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let bits = _mm_cvtsi32_si128(bits as i32);
            [_mm256_sll_epi16(a[0], bits), _mm256_sll_epi16(a[1], bits)]
        }
    }

    #[inline(always)]
    unsafe fn fifth_bits(bits: [__m256i; 2], k: usize) -> [__m256i; 2] {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            // Each row's byte with the four bits, four times; then a bit of its own is tested in each.
            let byte = _mm_set1_epi32((k / 2) as i32 * 0x0101_0101);
            let places = _mm_add_epi8(_mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c), byte);
            let places = _mm256_broadcastsi128_si256(places);
            let tested =
                _mm256_set1_epi32(if k.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010_u32 as i32 });
            array!(2, bits[0], half => {
                let bytes = _mm256_and_si256(_mm256_shuffle_epi8(bits[half], places), tested);
                _mm256_and_si256(_mm256_cmpeq_epi8(bytes, tested), _mm256_set1_epi8(16))
            })
        }
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    /// Products of pairs are added in 16 bits: `run` pairs of `bits`-bit numbers and signed bytes fit there, as
    /// `run · 2 · (2^bits − 1) · 127 < 2^15`. Bytes of eight bits are taken as two nibbles.
    #[inline(always)]
    unsafe fn dots<F: Format, const I: usize, const T: usize>(
        tile: *const u8,
        outer: usize,
        (first, last): (usize, usize),
        blocks: [*const Block; T],
        sums: [i32; T],
    ) -> [[__m256; 2]; T] {
        let run = match F::BITS {
            5 => 4,
            6 => 2,
            _ => 8,
        };
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            let mut out = [[_mm256_setzero_ps(); 2]; T];
            let ones = _mm256_set1_epi16(1);
            for half in 0..2 {
                let shift = _mm_cvtsi32_si128(F::OFFSET as i32);
                let mut dots = [_mm256_setzero_si256(); T];
                if F::OFFSET > 0 {
                    dots = array!(T, dots[0], t => _mm256_sll_epi32(_mm256_set1_epi32(sums[t]), shift));
                }
                let mut start = first;
                while start < last {
                    let mut pairs = [_mm256_setzero_si256(); T];
                    let mut high_pairs = [_mm256_setzero_si256(); T];
                    for k in start..last.min(start + run) {
                        let weights = F::quants::<Self, I>(tile, outer, k)[half];
                        let mask = _mm256_set1_epi8(15);
                        let (low, high) = if F::BITS == 8 {
                            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(weights), mask);
                            (_mm256_and_si256(weights, mask), high)
                        } else {
                            (weights, weights)
                        };
                        for t in 0..T {
                            let quants = (&raw const (*blocks[t]).quants[k]).cast::<i32>().read();
                            let quants = _mm256_set1_epi32(quants);
                            pairs[t] = _mm256_add_epi16(pairs[t], _mm256_maddubs_epi16(low, quants));
                            if F::BITS == 8 {
                                let products = _mm256_maddubs_epi16(high, quants);
                                high_pairs[t] = _mm256_add_epi16(high_pairs[t], products);
                            }
                        }
                    }
                    for t in 0..T {
                        dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(pairs[t], ones));
                        if F::BITS == 8 {
                            let high = _mm256_madd_epi16(high_pairs[t], _mm256_set1_epi16(16));
                            dots[t] = _mm256_add_epi32(dots[t], high);
                        }
                    }
                    start += run;
                }
                for t in 0..T {
                    out[t][half] = _mm256_cvtepi32_ps(dots[t]);
                }
            }
            out
        }
    }

    super::compiled!("avx2,fma,f16c", 1, 4, 4);
}
