#!/usr/bin/env python3
"""Makes `igvm_image.bin`, and prints for `igvm_digests.txt` what sev-snp-measure 0.0.13 says of it.

    python3 -m venv v && v/bin/pip install sev-snp-measure==0.0.13 && v/bin/python make_igvm.py > igvm_digests.txt

Two pages of arbitrary bytes, a secrets page, a CPUID page and a vCPU in 32-bit protected mode, written from the
format's description. It is not a file that this project's builder would make, so that a change of the builder leaves
the vectors as they are.
"""

import pathlib
import struct
import zlib

from igvm_digest import CPUID, NORMAL, PAGE_DATA, PLATFORM, POLICY, SECRETS, VP_CONTEXT, digests

PAGES = [(0x5000, CPUID), (0x8000, NORMAL), (0x9000, NORMAL), (0x7000, SECRETS)]


def segment(selector, attributes, limit, base=0):
    return struct.pack("<HHIQ", selector, attributes, limit, base)


vmsa = bytearray(4096)
data = segment(0x10, 0xC93, 0xFFFFFFFF)
table = segment(0, 0, 0xFFFF)
vmsa[:0x90] = data + segment(0x08, 0xC9B, 0xFFFFFFFF) + data * 4 + table + segment(0, 0x82, 0xFFFF) + table
vmsa[0x90:0xA0] = segment(0, 0x8B, 0xFFFF)
for offset, value in {
    0x0D0: 0x1000, 0x148: 0x40, 0x158: 0x31, 0x160: 0x400, 0x168: 0xFFFF0FF0, 0x170: 2, 0x178: 0x8123, 0x1D8: 0x9FF0,
    0x268: 0x0007040600070406, 0x328: 0x1122334455667788, 0x378: 7, 0x3B0: 1, 0x3E8: 1,
}.items():
    struct.pack_into("<Q", vmsa, offset, value)
struct.pack_into("<I", vmsa, 0x408, 0x1F80)
struct.pack_into("<H", vmsa, 0x410, 0x37F)

contents = [bytes((i * 7 + page) % 256 for i in range(4096)) for page in range(2)]


def header(kind, body):
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def build(first_data):
    offsets = iter((first_data, first_data + 4096, first_data + 8192))
    found = header(PLATFORM, struct.pack("<IBBHQ", 1, 0, 2, 1, 0))
    found += header(POLICY, struct.pack("<QII", 0x30000, 1, 0))
    for gpa, kind in PAGES:
        found += header(PAGE_DATA, struct.pack("<QIIIHH", gpa, 1, next(offsets) if kind == NORMAL else 0, 0, kind, 0))
    return found + header(VP_CONTEXT, struct.pack("<QIIHH", 0xFFFFFFFFF000, 1, next(offsets), 0, 0))


variable = build(0)
start = 24
variable = build(start + len(variable))
total = start + len(variable) + 3 * 4096
fixed = struct.pack("<4s5I", b"IGVM", 1, start, len(variable), total, 0)
fixed = fixed[:20] + struct.pack("<I", zlib.crc32(fixed + variable))
path = pathlib.Path(__file__).with_name("igvm_image.bin")
path.write_bytes(fixed + variable + b"".join(contents) + bytes(vmsa))
for line in digests(path, [1, 2, 4, 8, 64], ["EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"]):
    print(*line)
