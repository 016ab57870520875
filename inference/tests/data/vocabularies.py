"""Makes vocabularies.zst: vocabularies, texts, and the tokens that llama.cpp gives.

    python vocabularies.py LLAMA_CPP TOKENIZE

LLAMA_CPP is its source folder (MIT; the vocabularies in models/ are those of GPT-2, Refact, Llama 3, Qwen2 and Llama 2,
under their models' licences); TOKENIZE a program that reads texts, each after its length (u32), and writes for each the
number of tokens and the tokens (u32), from llama_tokenize(vocabulary, text, add_special = false, parse_special = false).

The file, before zstd: entries of a name and content, each after its length (u32, little-endian). For each vocabulary:
NAME.gguf, NAME.inp and NAME.out (llama.cpp's own cases) and NAME.ids (the tokens of `texts`); and `texts`.
"""
import pathlib
import random
import subprocess
import sys
import unicodedata

NAMES = ["gpt-2", "refact", "llama-bpe", "qwen2", "llama-spm"]
llama_cpp, tokenize = pathlib.Path(sys.argv[1]), sys.argv[2]
here = pathlib.Path(__file__).parent
rng = random.Random(4)
old = unicodedata.ucd_3_2_0
# What Unicode 3.2 knew, and has not changed its class since: versions differ between libraries.
known = [chr(c) for c in range(0x110000) if (k := old.category(chr(c))) not in ("Cn", "Cs")
         and k[0] == unicodedata.category(chr(c))[0]]
by_class = {k: [c for c in known if unicodedata.category(c)[0] == k] for k in "LMNPSZ"}
words = ["the", "station", " tomorrow", "I'll", "WE'VE", "don't", "it's", "Größe", "naïve", " Straße", "Привет", " мир", "明日", "の",
         "مرحبا", "नमस्ते", "안녕", "🙂", "👍🏽", "🦙", "12345", " 7", "3.14", "0x1f", "\n", "\n\n", "\t", " ", "  ", "    ", "\r\n", " \n ",
         "...", "!!", " (", ")", "{", "};", "==", "://", "'", "'s", "'LL", "\u00a0", "\u3000", "\u2028", "▁", "<s>", "</s>", "<0x0A>",
         "[INST]", "http", "café", "ﬁ", "①", "½", "Ⅷ", "\u200d", "\ufeff", "\x00", "\x7f"]
texts = [""]
for _ in range(700):
    parts = []
    for _ in range(rng.randrange(1, 16)):
        pick = rng.random()
        if pick < 0.6:
            parts.append(rng.choice(words))
        elif pick < 0.85:
            parts.append("".join(rng.choices(by_class[rng.choice("LLMNPSZ")], k=rng.randrange(1, 4))))
        elif pick < 0.95:
            parts.append("".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFG 0123456789'", k=rng.randrange(1, 12))))
        else:
            parts.append("".join(rng.choices(known, k=2)))
    texts.append("".join(parts))
texts.append("".join(rng.choices(words, k=3000)))
counted = b"".join(len(t := text.encode()).to_bytes(4, "little") + t for text in texts)
(tmp := here / "texts.tmp").write_bytes(counted)
out = bytearray()


def put(name, data):
    for part in (name.encode(), data):
        out.extend(len(part).to_bytes(4, "little") + part)


put("texts", counted)
for name in NAMES:
    path = llama_cpp / "models" / f"ggml-vocab-{name}.gguf"
    subprocess.run([tokenize, path, tmp, here / "ids.tmp"], check=True)
    put(f"{name}.ids", (here / "ids.tmp").read_bytes())
    for suffix in (".inp", ".out"):
        put(name + suffix, path.with_suffix(".gguf" + suffix).read_bytes())
    put(f"{name}.gguf", path.read_bytes())
(here / "vocabularies").write_bytes(out)
subprocess.run(["zstd", "-q", "-f", "--ultra", "-22", "--rm", here / "vocabularies", "-o", here / "vocabularies.zst"], check=True)
for name in ("texts.tmp", "ids.tmp"):
    (here / name).unlink()
