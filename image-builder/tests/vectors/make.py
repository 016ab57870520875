#!/usr/bin/env python3
"""Makes `firmware.bin`, and prints for `launch_digests.json` what sev-snp-measure 0.0.13 says of it.

    python3 -m venv v && v/bin/pip install sev-snp-measure==0.0.13 && v/bin/python make.py > launch_digests.json

The ROM is two pages of arbitrary bytes with the tables of a firmware for SEV-SNP. It is not one that this project's
builder would make, so that a change of the builder leaves the vectors as they are.
"""

import json
import pathlib
import struct
import uuid

from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS

SIZE = 8192
METADATA = 0x1800
AP_START = 0xFFFFEABC
SECTIONS = [(0x2000, 0x3000, 1), (0x9000, 0x1000, 3), (0x800000, 0x2000, 1), (0x8000, 0x1000, 2)]


def entry(guid, data):
    return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le


rom = bytearray((i * 7 + i // 256) % 256 for i in range(SIZE))
metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(SECTIONS), 1, len(SECTIONS))
metadata += b"".join(struct.pack("<III", *section) for section in SECTIONS)
rom[METADATA : METADATA + len(metadata)] = metadata
entries = entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", AP_START))
entries += entry("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", SIZE - METADATA))
table = entries + struct.pack("<H", len(entries) + 18) + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
rom[SIZE - 32 - len(table) : SIZE - 32] = table
path = pathlib.Path(__file__).with_name("firmware.bin")
path.write_bytes(rom)

digests = [
    {
        "vcpus": vcpus,
        "cpu_type": cpu,
        "digest": guest.calc_launch_digest(SevMode.SEV_SNP, vcpus, CPU_SIGS[cpu], str(path), "", "", "", 1).hex(),
    }
    for cpu in ["EPYC-Milan", "EPYC-Milan-v1", "EPYC-Milan-v2", "EPYC-Genoa", "EPYC-Genoa-v1", "EPYC-Turin"]
    for vcpus in [1, 2, 4, 64]
]
print(json.dumps(digests, indent=1))
