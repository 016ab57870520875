//! The vectors of processors with AVX2, FMA and F16C: every processor that has SEV-SNP. A vector is two halves.
use super::format::Format;
use super::simd::{Block, Simd, array, operation};
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

/// The inner products of `N` vectors of weights with what is loaded of each block once: one `HALF` of the rows or both,
/// or, of bytes of eight bits, the low and the high nibbles of one.
///
/// Products of pairs are added in 16 bits: `run` pairs of `bits`-bit numbers and signed bytes fit there, as
/// `run · 2 · (2^bits − 1) · 127 < 2^15`.
#[inline(always)]
unsafe fn pair<F: Format, const I: usize, const T: usize, const HALF: usize, const N: usize>(
    tile: *const u8,
    outer: usize,
    (first, last): (usize, usize),
    blocks: [*const Block; T],
) -> [[__m256i; T]; 2] {
    let run = match F::BITS {
        5 => 4,
        6 => 2,
        _ => 8,
    };
    // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
    unsafe {
        let mut dots = [[_mm256_setzero_si256(); T]; 2];
        let mut start = first;
        while start < last {
            let mut pairs = [[_mm256_setzero_si256(); T]; 2];
            // Unrolled, this would not fit the registers.
            let end = if F::STREAMED || run < 8 { start + run } else { core::hint::black_box(start + run) };
            for k in start..last.min(end) {
                let mut weights = F::quants::<Avx2, I>(tile, outer, k);
                if F::HIGH > 0 {
                    weights = [weights[HALF], F::quants::<Avx2, I>(tile.add(F::HIGH), outer, k)[HALF]];
                } else if F::BITS == 8 {
                    let (nibbles, mask) = (weights[HALF], _mm256_set1_epi8(15));
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(nibbles), mask);
                    weights = [_mm256_and_si256(nibbles, mask), high];
                } else {
                    weights[0] = weights[HALF];
                }
                for t in 0..T {
                    let quants = (&raw const (*blocks[t]).quants[k]).cast::<i32>().read();
                    let quants = _mm256_set1_epi32(quants);
                    for i in 0..N {
                        let products = _mm256_maddubs_epi16(weights[i], quants);
                        pairs[i][t] = _mm256_add_epi16(pairs[i][t], products);
                    }
                }
            }
            for i in 0..N {
                for t in 0..T {
                    let times = if F::BITS == 8 && i == 1 { 16 } else { 1 };
                    let sums = _mm256_madd_epi16(pairs[i][t], _mm256_set1_epi16(times));
                    dots[i][t] = _mm256_add_epi32(dots[i][t], sums);
                }
            }
            start += run;
        }
        dots
    }
}

/// Fills a block with quants, their scale and their sums.
#[inline(always)]
pub(super) unsafe fn finish_block(quants: [__m128i; 2], scale: f32, out: &mut Block) {
    // SAFETY: the caller has the instructions. A block is four vectors: two of quants, its scale with the sums, and the
    // shifts with what is not used.
    unsafe {
        let fours = array!(2, quants[0], half => {
            let pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), quants[half]);
            _mm_madd_epi16(pairs, _mm_set1_epi16(-128))
        });
        let eights = _mm_hadd_epi32(fours[0], fours[1]);
        let halves = _mm_hadd_epi32(eights, eights);
        let whole = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b10_11_00_01>(halves));
        let sums = _mm_blend_epi32::<1>(_mm_shuffle_epi32::<0b01_01_00_00>(halves), whole);
        let shifts = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(scale * (1.0 / 128.0)));
        let sums = _mm_castsi128_ps(_mm_shuffle_epi32::<0b10_01_00_00>(sums));
        let sums = _mm_castps_si128(_mm_move_ss(sums, _mm_set_ss(scale)));
        let vectors = [quants[0], quants[1], sums, _mm_castps_si128(shifts)];
        (&raw mut *out).cast::<[__m128i; 4]>().write(vectors);
    }
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type B = [__m256i; 2];

    operation! { splat(value: f32) -> [__m256; 2] { [_mm256_set1_ps(value); 2] } }
    operation! { load(at: *const f32) -> [__m256; 2] { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] } }
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

    operation! { add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] } }
    operation! { sub(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] } }
    operation! { mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] } }
    operation! { div(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] } }
    operation! { fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] } }
    operation! { max(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] } }
    operation! { min(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] } }
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

    operation! { sum(a: [__m256; 2]) -> f32 { sum_of_eight(_mm256_add_ps(a[0], a[1])) } }
    operation! { largest(a: [__m256; 2]) -> f32 { largest_of_eight(_mm256_max_ps(a[0], a[1])) } }
    #[inline(always)]
    unsafe fn block(halves: [[__m256; 2]; 2], scale: f32, out: &mut Block) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let quants = array!(2, _mm_setzero_si128(), half => {
                let [low, high] = halves[half];
                // Packing works within halves of 128 bits, so the quarters come out in the order 0, 2, 1, 3.
                let words = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
                _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
            });
            finish_block(quants, scale, out);
        }
    }

    operation! { bytes(at: *const u8) -> [__m256i; 2] { [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())] } }
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

    operation! { or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] } }
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

    operation! { prefetch(at: *const u8) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) } }
    #[inline(always)]
    unsafe fn dots<F: Format, const I: usize, const G: usize, const T: usize>(
        tiles: [*const u8; G],
        outer: usize,
        fours: (usize, usize),
        blocks: [*const Block; T],
        sum: usize,
    ) -> [[[__m256; 2]; T]; G] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            let mut out = [[[_mm256_setzero_ps(); 2]; T]; G];
            for g in 0..G {
                let dots = if F::BITS == 8 {
                    let first = pair::<F, I, T, 0, 2>(tiles[g], outer, fours, blocks);
                    let second = pair::<F, I, T, 1, 2>(tiles[g], outer, fours, blocks);
                    array!(2, first[0], half => {
                        let [low, high] = if half == 0 { first } else { second };
                        array!(T, low[0], t => _mm256_add_epi32(low[t], high[t]))
                    })
                } else if T == 1 {
                    let [first, _] = pair::<F, I, T, 0, 1>(tiles[g], outer, fours, blocks);
                    [first, pair::<F, I, T, 1, 1>(tiles[g], outer, fours, blocks)[0]]
                } else {
                    pair::<F, I, T, 0, 2>(tiles[g], outer, fours, blocks)
                };
                for t in 0..T {
                    let offset = _mm256_set1_epi32((*blocks[t]).sums[sum]);
                    let offset = _mm256_sra_epi32(offset, _mm_cvtsi32_si128(7 - F::OFFSET as i32));
                    for half in 0..2 {
                        let mut dots = dots[half][t];
                        if F::OFFSET > 0 {
                            dots = _mm256_add_epi32(dots, offset);
                        }
                        out[g][t][half] = _mm256_cvtepi32_ps(dots);
                    }
                }
            }
            out
        }
    }

    const RAISES: bool = false;
    super::compiled!("avx2,fma,f16c", 1, 4, 6);
}
