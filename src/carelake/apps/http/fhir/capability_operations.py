"""The operations that the CapabilityStatement lists, by where they are; a test holds it to what is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["of_server", "of_type"]

_DEFINED = "http://hl7.org/fhir/OperationDefinition/"
_BULK = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"
_OWN = "urn:carelake:operation:"

_EVERY_TYPE = ("Resource-meta", "Resource-meta-add", "Resource-meta-delete", "Resource-validate")
_BY_TYPE: Mapping[str, Sequence[str]] = {
    "CodeSystem": ("CodeSystem-lookup", "CodeSystem-subsumes", "CodeSystem-validate-code"),
    "ConceptMap": ("ConceptMap-translate",),
    "Encounter": ("Encounter-everything",),
    "Observation": ("Observation-lastn",),
    "Patient": ("Patient-everything", "Patient-match"),
    "ValueSet": ("ValueSet-expand", "ValueSet-validate-code"),
}
_SERVER = ("Resource-meta",)
"""Names of definitions of R4 are the type, a hyphen and the operation's code."""
_OTHERS: Mapping[str, Mapping[str, str]] = {
    "": {
        "export": f"{_BULK}export",
        "import": f"{_OWN}import",
        **{
            name: f"{_OWN}{name}"
            for name in (
                "sql-export",
                "sql-run",
                "sqlquery-export",
                "sqlquery-run",
                "viewdefinition-export",
                "viewdefinition-run",
            )
        },
    },
    "Group": {"export": f"{_BULK}group-export"},
    "Library": {name: f"{_OWN}{name}" for name in ("sqlquery-export", "sqlquery-run")},
    "Patient": {
        "erase": f"{_OWN}erase",
        "export": f"{_BULK}patient-export",
        "purge": f"{_DEFINED}Patient-purge",
    },
}
"""Those that are not of R4: of Bulk Data, of later versions, and our own; "" for the server's."""


def of_type(name: str) -> list[dict[str, str]]:
    """The operations of a resource type, on the type or on one resource of it."""
    return _listed((*_EVERY_TYPE, *_BY_TYPE.get(name, ())), name)


def of_server() -> list[dict[str, str]]:
    """The operations on all there is."""
    return _listed(_SERVER, "")


def _listed(definitions: Sequence[str], kind: str) -> list[dict[str, str]]:
    named = {one.partition("-")[2]: _DEFINED + one for one in definitions} | dict(_OTHERS.get(kind, {}))
    return [{"name": name, "definition": named[name]} for name in sorted(named)]
