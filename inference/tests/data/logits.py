"""Makes logits.bin: what llama.cpp gives for the models of tests/llama_cpp.rs.

    MODELS_FOR_LLAMA_CPP=DIR cargo test --release -p inference --test llama_cpp -- --ignored
    python logits.py DIR LOGITS

LOGITS is a program, called as `LOGITS MODEL IDS OUT`, that evaluates the token ids of a text file with llama.cpp's
llama_decode and writes the logits of every position as f32; with KV_F32 in its environment it keeps keys and values as
F32. logits.bin was made with the llama.cpp in the source distribution of llama-cpp-python 0.3.36, for a CPU with AVX-512.

For each model in the order of their names: FNV-1a of the file (u64), then the logits of positions 13, 26, 39 and 40 (f32).
"""
import os
import pathlib
import subprocess
import sys

folder, program = pathlib.Path(sys.argv[1]), sys.argv[2]
VOCABULARY = 301
out = bytearray()
for path in sorted(folder.glob("*.gguf")):
    result = folder / "out"
    subprocess.run([program, path, folder / "ids", result], check=True, env={**os.environ, "KV_F32": "1"})
    data = result.read_bytes()
    rows = [data[i:i + VOCABULARY * 4] for i in range(0, len(data), VOCABULARY * 4)]
    assert len(rows) == 40
    stamp = 0xCBF29CE484222325
    for byte in path.read_bytes():
        stamp = (stamp ^ byte) * 0x100000001B3 % 2**64
    out += stamp.to_bytes(8, "little") + b"".join(rows[i] for i in (12, 25, 38, 39))
pathlib.Path(__file__).with_suffix(".bin").write_bytes(out)
