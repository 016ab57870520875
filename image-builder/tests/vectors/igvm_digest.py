#!/usr/bin/env python3
"""Prints the launch digests of an IGVM file, one a line: CPU type, vCPUs, digest.

    igvm_digest.py cloister.igvm 1,2,4,8,64 EPYC-Milan,EPYC-Genoa,EPYC-Turin

The arithmetic and the VMSA of a vCPU at reset are sev-snp-measure's (0.0.13), which itself reads no IGVM files. This
reads them from the format's description (igvm_defs 0.5.0, `IGVM_FIXED_HEADER`, `IGVM_VHS_PAGE_DATA`,
`IGVM_VHS_VP_CONTEXT`) and tells it what QEMU 10.1 does: each page in the file's order, the VMSA of the first vCPU from
the file, and for all others, which the file cannot describe, the state at reset.
"""

import pathlib
import struct
import sys
import zlib

from sevsnpmeasure.gctx import GCTX
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmsa import VMSA

PLATFORM, POLICY, PAGE_DATA, VP_CONTEXT = 0x1, 0x101, 0x302, 0x304
NORMAL, SECRETS, CPUID = 0, 1, 2
RESET_VECTOR = 0xFFFFFFF0


def headers(file):
    magic, version, start, size, total, checksum = struct.unpack_from("<4s5I", file)
    assert (magic, version, total) == (b"IGVM", 1, len(file)), "not an IGVM file of version 1"
    checked = file[:20] + bytes(4) + file[24:start] + file[start : start + size]
    assert zlib.crc32(checked) == checksum, "wrong checksum"
    at = start
    while at < start + size:
        kind, length = struct.unpack_from("<II", file, at)
        yield kind, file[at + 8 : at + 8 + length]
        at += 8 + (length + 7) // 8 * 8


def measure(file):
    """The digest of all pages, and the first vCPU's VMSA."""
    context, vmsa = GCTX(), None
    for kind, header in headers(file):
        if kind == PAGE_DATA:
            assert vmsa is None, "a page after the VMSA"
            gpa, _, offset, flags, data_type = struct.unpack_from("<QIIIH", header)
            assert flags == 0
            if data_type == SECRETS:
                context.update_secrets_page(gpa)
            elif data_type == CPUID:
                context.update_cpuid_page(gpa)
            else:
                assert data_type == NORMAL and offset != 0, "a page without data"
                context.update_normal_pages(gpa, file[offset : offset + 4096])
        elif kind == VP_CONTEXT:
            gpa, _, offset, index = struct.unpack_from("<QIIH", header)
            assert (gpa, index, vmsa) == (GCTX.VMSA_GPA, 0, None)
            vmsa = file[offset : offset + 4096]
        else:
            assert kind in (PLATFORM, POLICY), hex(kind)
    return context.ld(), vmsa


def digests(path, counts, types):
    pages, first = measure(pathlib.Path(path).read_bytes())
    for cpu in types:
        context = GCTX(seed=pages)
        context.update_vmsa_page(first)
        other = bytes(VMSA.build_save_area(RESET_VECTOR, 1, CPU_SIGS[cpu]))
        for vcpus in range(1, max(counts) + 1):
            if vcpus > 1:
                context.update_vmsa_page(other)
            if vcpus in counts:
                yield cpu, vcpus, context.hex_ld()


if __name__ == "__main__":
    _, path, counts, types = sys.argv
    for line in digests(path, [int(count) for count in counts.split(",")], types.split(",")):
        print(*line)
