//! Random weights in the layouts of `ggml-common.h`, made without a detour over floats.
use super::Random;
use clap::ValueEnum;

/// How the elements of a tensor are stored; the numbers are those of `ggml_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2K = 10,
    Q3K = 11,
    Q4K = 12,
    Q5K = 13,
    Q6K = 14,
    Bf16 = 30,
}

/// What a file's matrices are stored as; mixtures follow llama.cpp's `llama-quantize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(non_camel_case_types, reason = "the names that the formats have")]
pub enum FileType {
    #[value(name = "f32")]
    F32,
    #[value(name = "f16")]
    F16,
    #[value(name = "bf16")]
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q5_1")]
    Q5_1,
    #[value(name = "q2_k")]
    Q2_K,
    #[value(name = "q3_k_m")]
    Q3_K_M,
    #[value(name = "q4_k_m")]
    Q4_K_M,
    #[value(name = "q5_k_m")]
    Q5_K_M,
    #[value(name = "q6_k")]
    Q6_K,
}

/// A matrix's place in the model, as far as mixtures distinguish it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Output,
    Value,
    AttentionOutput,
    Down,
    Other,
}

impl FileType {
    /// `general.file_type` (`llama_ftype`).
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 7,
            Self::Q5_0 => 8,
            Self::Q5_1 => 9,
            Self::Q2_K => 10,
            Self::Q3_K_M => 12,
            Self::Q4_K_M => 15,
            Self::Q5_K_M => 17,
            Self::Q6_K => 18,
            Self::Bf16 => 32,
        }
    }

    /// The type of a matrix (`llama_tensor_get_type` in llama.cpp's `llama-quant.cpp`). Where rows do not fill
    /// blocks of 256, the type falls back as there, but for Q2_K and Q3_K, which become Q4_0 here.
    pub fn kind(self, role: Role, layer: usize, layers: usize, width: usize) -> Kind {
        let more = layer < layers / 8 || layer >= 7 * layers / 8 || layer.saturating_sub(layers / 8) % 3 == 2;
        let base = match self {
            Self::F32 => Kind::F32,
            Self::F16 => Kind::F16,
            Self::Bf16 => Kind::Bf16,
            Self::Q8_0 => Kind::Q8_0,
            _ if role == Role::Output => Kind::Q6K,
            Self::Q4_0 => Kind::Q4_0,
            Self::Q4_1 => Kind::Q4_1,
            Self::Q5_0 => Kind::Q5_0,
            Self::Q5_1 => Kind::Q5_1,
            Self::Q2_K if role == Role::Other => Kind::Q2K,
            Self::Q2_K => Kind::Q3K,
            Self::Q3_K_M => match role {
                Role::Value if layer < 2 => Kind::Q5K,
                Role::Down if layer < layers / 16 => Kind::Q5K,
                Role::Other | Role::Output => Kind::Q3K,
                _ => Kind::Q4K,
            },
            Self::Q4_K_M | Self::Q5_K_M if more && matches!(role, Role::Value | Role::Down) => Kind::Q6K,
            Self::Q4_K_M => Kind::Q4K,
            Self::Q5_K_M => Kind::Q5K,
            Self::Q6_K => Kind::Q6K,
        };
        match base {
            _ if width.is_multiple_of(256) => base,
            Kind::Q2K | Kind::Q3K => Kind::Q4_0,
            Kind::Q4K => Kind::Q5_0,
            Kind::Q5K => Kind::Q5_1,
            Kind::Q6K => Kind::Q8_0,
            kind => kind,
        }
    }
}

impl Kind {
    /// Elements and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Appends so many random elements with about this standard deviation and no mean.
    pub fn fill(self, elements: usize, deviation: f32, random: &mut Random, out: &mut Vec<u8>) {
        for _ in 0..elements / self.block().0 {
            self.push_block(deviation, random, out);
        }
    }

    /// The scales make evenly distributed quants, whose deviation is their range divided by √12, what was asked for.
    fn push_block(self, deviation: f32, random: &mut Random, out: &mut Vec<u8>) {
        // Blocks differ, by at most a quarter.
        let deviation = deviation * (0.75 + 0.5 * random.unit());
        let scale = |steps: f32| deviation * 12.0_f32.sqrt() / steps;
        // K-quants have scales of scales: 32 to 63 here, 48 on average.
        let nested = |steps: f32, of: f32| scale(steps) / of;
        match self {
            Self::F32 => out.extend((random.normal() * deviation).to_le_bytes()),
            Self::F16 => half(out, random.normal() * deviation),
            Self::Bf16 => out.extend(&(random.normal() * deviation).to_le_bytes()[2..]),
            Self::Q4_0 => {
                half(out, scale(16.0));
                random.bytes(16, out);
            }
            Self::Q4_1 => {
                half(out, scale(16.0));
                half(out, -7.5 * scale(16.0));
                random.bytes(16, out);
            }
            Self::Q5_0 => {
                half(out, scale(32.0));
                random.bytes(20, out);
            }
            Self::Q5_1 => {
                half(out, scale(32.0));
                half(out, -15.5 * scale(32.0));
                random.bytes(20, out);
            }
            Self::Q8_0 => {
                half(out, scale(255.0));
                let start = out.len();
                random.bytes(32, out);
                // The reference encoder never gives -128.
                out[start..].iter_mut().filter(|quant| **quant == 128).for_each(|quant| *quant = 129);
            }
            Self::Q2K => {
                // A scale in the low half of each byte, the same factor for its minimum in the high half.
                let scales: [u8; 16] = std::array::from_fn(|_| 8 + (random.next() >> 61) as u8);
                out.extend(scales.map(|scale| scale | scale << 4));
                random.bytes(64, out);
                half(out, nested(4.0, 11.5));
                half(out, 1.5 * nested(4.0, 11.5));
            }
            Self::Q3K => {
                random.bytes(32 + 64, out);
                // Sixteen scales of 6 bits, 32 more than they mean: here 16 to 31.
                let mut packed = [0; 12];
                for (index, scale) in (0..16).map(|index| (index, 48 + (random.next() >> 60) as u8)) {
                    packed[index % 8] |= (scale & 15) << (4 * (index / 8));
                    packed[8 + index % 4] |= (scale >> 4) << (2 * (index / 4));
                }
                out.extend(packed);
                half(out, nested(8.0, 23.5));
            }
            Self::Q4K | Self::Q5K => {
                let (steps, middle, bytes) =
                    if self == Self::Q4K { (16.0, 7.5, 128) } else { (32.0, 15.5, 160) };
                half(out, nested(steps, 47.5));
                half(out, middle * nested(steps, 47.5));
                let scales: [u8; 8] = std::array::from_fn(|_| 32 + (random.next() >> 59) as u8);
                out.extend(pack_scales_and_minima(scales, scales));
                random.bytes(bytes, out);
            }
            Self::Q6K => {
                random.bytes(128 + 64, out);
                out.extend((0..16).map(|_| 64 + (random.next() >> 58) as u8));
                half(out, nested(64.0, 95.5));
            }
        }
    }
}

/// Eight scales and eight minima of 6 bits each, as `get_scale_min_k4` in ggml reads them.
fn pack_scales_and_minima(scales: [u8; 8], minima: [u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for index in 0..4 {
        packed[index] = scales[index] | (scales[index + 4] >> 4) << 6;
        packed[index + 4] = minima[index] | (minima[index + 4] >> 4) << 6;
        packed[index + 8] = scales[index + 4] & 15 | minima[index + 4] << 4;
    }
    packed
}

/// Appends a number that is normal in half precision, truncated to it.
fn half(out: &mut Vec<u8>, value: f32) {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 255) as i32 - 127 + 15;
    let magnitude = if exponent > 0 { (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 } else { 0 };
    out.extend(((bits >> 16 & 0x8000) as u16 | magnitude).to_le_bytes());
}
