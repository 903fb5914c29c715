"""Read the profiles of a FHIR package (https://hl7.org/fhir/R4/packages.html; a ``.tgz`` of JSON files).

Only what validation needs is kept: cardinalities, types, fixed values, patterns, slices, constraints, and required
bindings whose codes the package, or one given with it, lists itself.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from carelake.core.errors import Invalid
from carelake.fhir.profiles.registry import Registry
from carelake.fhir.profiles.tree import Profile, Row, Slicing, TypeOf
from carelake.fhir.rules import Rule, ValueSet

__all__ = [
    "MAX_PACKAGE",
    "Listed",
    "ValueSets",
    "flat",
    "load",
    "own_rules",
    "profile_of",
    "resources_of",
    "type_code",
]

Json = dict[str, Any]
Listed = dict[str, set[str]]
"""Codes by code system."""

MAX_PACKAGE = 128 << 20
"""The largest package that is read, in bytes as it comes."""
_MAX_BYTES = 512 << 20
_MAX_FILE = 64 << 20
_MAX_FILES = 50_000
_BLOCK = 1 << 20
_FILE = re.compile(r"[A-Z]\w+-.*\.json")
_KINDS = frozenset({"StructureDefinition", "ValueSet", "CodeSystem"})
_FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
# Advice, such as to write a narrative (dom-6), says nothing about validity.
_BEST_PRACTICE = "http://hl7.org/fhir/StructureDefinition/elementdefinition-bestpractice"
# Walked structurally, on every element, by `carelake.fhir.structure`.
_STRUCTURAL = frozenset({"ele-1", "ext-1"})
# Later releases of the standard say of these that they are about an element that is there; R4's text forgets it, and
# an expression that comes to nothing does not hold.
_WHERE_PRESENT = {"ref-1": "reference", "bdl-8": "fullUrl", "ras-2": "probability"}


def load(package: bytes, registry: Registry) -> Registry:
    """A registry that knows the package's profiles too.

    Args:
        package: the ``.tgz``, at most 128 MiB, unpacked at most 512 MiB. Nothing of it is written anywhere. Profiles
            without a snapshot are not known; who asks for one is told why.

    Raises:
        Invalid: ``fhir.package``.
    """
    if len(package) > MAX_PACKAGE:
        raise _not_a_package(f"it is larger than {MAX_PACKAGE >> 20} MiB")
    found: dict[str, dict[str, Json]] = {}
    for resource in resources_of(package):
        if isinstance(resource.get("url"), str):
            found.setdefault(resource["resourceType"], {})[resource["url"]] = resource
    value_sets = ValueSets(found.get("ValueSet", {}), found.get("CodeSystem", {}))
    definitions = found.get("StructureDefinition", {}).values()
    if any(not str(d.get("fhirVersion", "4.0.1")).startswith("4.0") for d in definitions):
        raise _not_a_package("its profiles are of another version of FHIR than R4")
    try:
        profiles = [profile_of(d, value_sets) for d in narrowed(definitions)]
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError):
        raise _not_a_package("a StructureDefinition in it is not one of FHIR R4") from None
    codes: dict[str, ValueSet] = {
        url: {system: frozenset(known) for system, known in listed.items()}
        for url, listed in value_sets.listed.items()
    }
    bare = [str(url) for url, d in found.get("StructureDefinition", {}).items() if "snapshot" not in d]
    return registry.joined(profiles, codes, bare)


def narrowed(definitions: Iterable[Json]) -> list[Json]:
    """Those that are profiles: constraints of a type, with a snapshot."""
    return [
        d for d in definitions if d.get("derivation") == "constraint" and d["kind"] != "logical" and "snapshot" in d
    ]


def resources_of(package: bytes) -> Iterator[Json]:
    """The definitions, value sets and code systems of a package, without those among its examples."""
    try:
        with (
            gzip.GzipFile(fileobj=io.BytesIO(package)) as unpacked,
            tarfile.open(fileobj=_Bounded(unpacked), mode="r|") as archive,  # type: ignore[call-overload]
        ):
            for number, member in enumerate(archive):
                if number > _MAX_FILES:
                    raise _not_a_package(f"it holds more than {_MAX_FILES:,} files")
                stream = archive.extractfile(member) if member.isfile() and _wanted(member.name) else None
                if stream is not None:
                    if member.size > _MAX_FILE:
                        raise _not_a_package(f"a file in it is larger than {_MAX_FILE >> 20} MiB")
                    resource = json.load(stream)
                    if isinstance(resource, dict) and resource.get("resourceType") in _KINDS:
                        yield resource
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError, OverflowError):
        raise _not_a_package("it is no .tgz of JSON files") from None


def _wanted(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return _FILE.fullmatch(file) is not None and not folder.endswith(("example", "examples"))


class _Bounded:
    """What an archive is read from: it ends with an error where a bomb begins, headers and gaps included."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = _MAX_BYTES

    def read(self, size: int) -> bytes:
        """At most so many bytes, and never so many that memory suffers."""
        data = self._stream.read(min(size, _BLOCK))
        self._left -= len(data)
        if self._left < 0:
            raise _not_a_package(f"it unpacks to more than {_MAX_BYTES >> 20} MiB")
        return data


def _not_a_package(why: str) -> Invalid:
    return Invalid("fhir.package", f"The FHIR package was not read: {why}. Expected one as FHIR registries give it.")


def profile_of(definition: Json, value_sets: ValueSets, known: frozenset[str] = frozenset()) -> Profile:
    """A StructureDefinition as it is kept.

    Args:
        known: keys of constraints that the types have already.
    """
    rows = tuple(_row(element, value_sets, known) for element in definition["snapshot"]["element"])
    version, base = definition.get("version", ""), definition.get("baseDefinition", "")
    return Profile(definition["url"], definition["type"], rows, version, base)


def _row(element: Json, value_sets: ValueSets, known: frozenset[str]) -> Row:
    own_id = element["path"].endswith(".id") and element.get("base", {}).get("path") == "Resource.id"
    said = {
        "is" if k.startswith("fixed") else "like": v for k, v in element.items() if k.startswith(("fixed", "pattern"))
    }
    binding = element.get("binding", {})
    required = binding.get("strength") == "required" and "valueSet" in binding
    types = tuple(
        TypeOf("id" if own_id else type_code(t), tuple(t.get("profile", ())), tuple(t.get("targetProfile", ())))
        for t in element.get("type", ())
    )
    return Row(
        id=element["id"],
        path=element["path"],
        min=element.get("min", 0),
        max=element.get("max", "*"),
        slice_name=element.get("sliceName", ""),
        type=types,
        slicing=_slicing(element.get("slicing")),
        is_=said.get("is", msgspec.UNSET),
        like=said.get("like", msgspec.UNSET),
        constraint=own_rules(element, known),
        value_set=value_sets.bind(binding["valueSet"]) if required else "",
    )


def _slicing(told: Json | None) -> Slicing | None:
    if told is None:
        return None
    by = tuple((d["type"], d["path"]) for d in told.get("discriminator", ()))
    return Slicing(told["rules"], told.get("ordered", False), by)


def type_code(kind: Json) -> str:
    """The FHIR name of an element's type; ids and urls are given in packages as FHIRPath system types."""
    told = [x["valueUrl"] for x in kind.get("extension", ()) if x["url"] == _FHIR_TYPE and "valueUrl" in x]
    return str(told[0] if told else kind["code"])


def own_rules(element: Json, known: frozenset[str] = frozenset()) -> tuple[Rule, ...]:
    """An element's constraints, without those of ``known`` keys and what is advice only."""
    return tuple(
        Rule(c["key"], c["severity"], c["human"], _guarded(c["key"], c["expression"]))
        for c in element.get("constraint", ())
        if "expression" in c and c["key"] not in _STRUCTURAL | known and not _is_advice(c)
    )


def _is_advice(constraint: Json) -> bool:
    return any(x["url"] == _BEST_PRACTICE and x.get("valueBoolean") for x in constraint.get("extension", ()))


def _guarded(key: str, expression: str) -> str:
    about = "name" if expression.startswith("name.matches(") else _WHERE_PRESENT.get(key)
    return f"{about}.empty() or ({expression})" if about else expression


class ValueSets:
    """Value sets whose codes can be listed from the packages alone.

    Attributes:
        listed: those that were asked for and can be, by url.
    """

    def __init__(
        self, value_sets: Mapping[str, Json], code_systems: Mapping[str, Json], without: Iterable[str] = ()
    ) -> None:
        """Make it of resources by url, ``without`` the codes of some systems."""
        self._value_sets, self._code_systems = value_sets, code_systems
        self._without = frozenset(without)
        self.listed: dict[str, Listed] = {}

    def bind(self, url: str) -> str:
        """The url without its version when its codes can be listed; else ""."""
        url = url.partition("|")[0]
        if url not in self.listed:
            codes = self._list(url, 0)
            if codes is None:
                return ""
            self.listed[url] = codes
        return url

    def _list(self, url: str, depth: int) -> Listed | None:
        composed = self._value_sets.get(url, {}).get("compose", {})
        if depth > 8 or not composed.get("include") or composed.get("exclude"):
            return None
        codes: Listed = {}
        for include in composed["include"]:
            found = self._include(include, depth)
            if found is None:
                return None
            for system, known in found.items():
                codes.setdefault(system, set()).update(known)
        return codes

    def _include(self, include: Json, depth: int) -> Listed | None:
        system = include.get("system")
        if "filter" in include or system in self._without:
            return None
        if "valueSet" in include:
            urls = [url.partition("|")[0] for url in include["valueSet"]]
            return self._list(urls[0], depth + 1) if len(urls) == 1 and system is None else None
        if "concept" in include:
            return {str(system): {c["code"] for c in include["concept"]}}
        known = self._code_systems.get(str(system))
        if known is None or known.get("content") != "complete":
            return None
        return {str(system): set(flat(known.get("concept", [])))}


def flat(concepts: list[Json]) -> list[str]:
    """Codes of a concept tree that may be used; abstract ones only group others."""
    abstract = {"code": "notSelectable", "valueBoolean": True}
    own = [c["code"] for c in concepts if abstract not in c.get("property", ())]
    return [*own, *(code for c in concepts for code in flat(c.get("concept", [])))]
