//! The vectors of processors with AVX-512 (F, BW, DQ, VL) and VNNI: Genoa and later.
use super::avx2::{finish_block, largest_of_eight, sum_of_eight};
use super::format::Format;
use super::simd::{Block, Simd, array, operation};
use core::arch::x86_64::*;

/// AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

type Chosen = Avx512;

impl Simd for Avx512 {
    type F = __m512;
    type B = __m512i;

    operation! { splat(value: f32) -> __m512 { _mm512_set1_ps(value) } }
    operation! { load(at: *const f32) -> __m512 { _mm512_loadu_ps(at) } }
    operation! { store(vector: __m512, at: *mut f32) { _mm512_storeu_ps(at, vector) } }
    operation! { from_f16(at: *const u8) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) } }
    #[inline(always)]
    unsafe fn from_bf16(at: *const u8) -> __m512 {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    operation! { from_u8(values: [u8; 16]) -> __m512 { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(values.as_ptr().cast()))) } }
    operation! { from_i8(at: *const u8) -> __m512 { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast()))) } }
    operation! { add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) } }
    operation! { sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) } }
    operation! { mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) } }
    operation! { div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) } }
    operation! { fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) } }
    operation! { max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) } }
    operation! { min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) } }
    operation! { abs(a: __m512) -> __m512 { _mm512_abs_ps(a) } }
    #[inline(always)]
    unsafe fn add_exponent(value: __m512, shifted: __m512) -> __m512 {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value), exponent))
        }
    }

    operation! { sum(a: __m512) -> f32 { sum_of_eight(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a))) } }
    operation! { largest(a: __m512) -> f32 { largest_of_eight(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a))) } }
    operation! { block(halves: [__m512; 2], scale: f32, out: &mut Block) { finish_block(array!(2, _mm_setzero_si128(), half => _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(halves[half]))), scale, out) } }

    operation! { bytes(at: *const u8) -> __m512i { _mm512_loadu_si512(at.cast()) } }
    operation! { store_bytes(bytes: __m512i, at: *mut u8) { _mm512_storeu_si512(at.cast(), bytes) } }
    operation! { and(a: __m512i, mask: u8) -> __m512i { _mm512_and_si512(a, _mm512_set1_epi8(mask as i8)) } }
    operation! { or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) } }
    operation! { right(a: __m512i, bits: u32) -> __m512i { _mm512_srl_epi16(a, _mm_cvtsi32_si128(bits as i32)) } }
    operation! { left(a: __m512i, bits: u32) -> __m512i { _mm512_sll_epi16(a, _mm_cvtsi32_si128(bits as i32)) } }
    operation! { prefetch(at: *const u8) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) } }
    #[inline(always)]
    unsafe fn dots<F: Format, const I: usize, const G: usize, const T: usize>(
        tiles: [*const u8; G],
        outer: usize,
        (first, last): (usize, usize),
        blocks: [*const Block; T],
        sum: usize,
    ) -> [[__m512; T]; G] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe {
            let mut dots = [[_mm512_setzero_si512(); T]; G];
            if F::OFFSET > 0 {
                for t in 0..T {
                    let offset = _mm512_set1_epi32((*blocks[t]).sums[sum]);
                    let offset = _mm512_sra_epi32(offset, _mm_cvtsi32_si128(7 - F::OFFSET as i32));
                    for g in 0..G {
                        dots[g][t] = offset;
                    }
                }
            }
            for k in first..last {
                let weights = array!(G, dots[0][0], g => F::quants::<Self, I>(tiles[g], outer, k));
                for t in 0..T {
                    let quants = (&raw const (*blocks[t]).quants[k]).cast::<i32>().read();
                    let quants = _mm512_set1_epi32(quants);
                    for g in 0..G {
                        dots[g][t] = _mm512_dpbusd_epi32(dots[g][t], weights[g], quants);
                    }
                }
            }
            array!(G, [_mm512_setzero_ps(); T], g => {
                array!(T, _mm512_setzero_ps(), t => _mm512_cvtepi32_ps(dots[g][t]))
            })
        }
    }

    const RAISES: bool = true;
    super::compiled!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", 2, 4, 6);
}
