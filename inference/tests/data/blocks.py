"""Makes blocks.bin: stored blocks and their values, by the `gguf` package's numpy code (pip install gguf==0.19.0 numpy).

For each type: its number (u32), how many values (u32), the stored bytes, the values (f32). Then, for the types that the
package also quantises, the same with values that are no multiples of a scale, and the bytes it makes of them. All
little-endian.
"""
import pathlib
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

TYPES = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
# Where each block has half-precision numbers; everything else may be any byte.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
random = np.random.default_rng(1)
out = bytearray()


def put(kind, stored, values):
    out.extend(np.array([kind, values.size], dtype="<u4").tobytes())
    out.extend(stored.tobytes() + values.astype("<f4").tobytes())


for kind in TYPES:
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (512 // elements, size), dtype=np.uint8)
    for place in HALVES[kind]:
        scales = (random.normal(0, 0.01, len(blocks))).astype("<f2")
        blocks[:, place:place + 2] = scales.view(np.uint8).reshape(-1, 2)
    put(kind, blocks, dequantize(blocks.reshape(1, -1), kind))
for kind in [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]:
    values = random.normal(0, 0.3, (1, 512)).astype(np.float32)
    values[0, 64:96] = 0
    put(kind, quantize(values, kind), values)
pathlib.Path(__file__).with_suffix(".bin").write_bytes(out)
