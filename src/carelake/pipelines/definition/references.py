"""References in a definition: ``Get``, ``Std:Join`` and ``Std:JsonGet``, found, checked and resolved.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-properties.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from carelake.core.errors import Invalid
from carelake.pipelines.definition.places import Place

__all__ = ["EXECUTION", "Reference", "Scope", "follow", "references", "resolve"]

EXECUTION = frozenset(
    {
        "StartDateTime",
        "CurrentDateTime",
        "PipelineName",
        "PipelineArn",
        "PipelineExecutionId",
        "PipelineExecutionArn",
        "TrainingJobName",
        "ProcessingJobName",
    }
)
"""Names after ``Execution.``."""

_GET = re.compile(r"(Parameters|Execution|Steps)\.([A-Za-z0-9_-]{1,256})(?:\.(.{1,512}))?")
_PART = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_-]*)|\[(\d{1,6})\]|\['([^']{0,256})'\]|\[\"([^\"]{0,256})\"\]")
_FUNCTIONS = ("Std:Join", "Std:JsonGet")
_DEEP = 32


@dataclass(frozen=True, slots=True)
class Reference:
    """One ``Get``.

    Attributes:
        kind: ``Parameters``, ``Execution`` or ``Steps``.
        path: what follows a step's name, "" for the others.
    """

    kind: str
    name: str
    path: str = ""

    @classmethod
    def of(cls, place: Place) -> Reference:
        """The reference that a ``Get`` holds."""
        found = _GET.fullmatch(place.text())
        if found is None or (found[1] == "Steps") != bool(found[3]):
            raise place.wrong("Parameters.NAME, Execution.NAME, or Steps.STEP.PROPERTY")
        if found[1] == "Execution" and found[2] not in EXECUTION:
            raise place.wrong(f"Execution. and one of {', '.join(sorted(EXECUTION))}")
        return cls(found[1], found[2], found[3] or "")


class Scope(Protocol):
    """What references mean in one execution."""

    def value(self, reference: Reference) -> Any:
        """The value of a reference."""
        ...

    def document(self, uri: Any) -> Any:
        """The JSON document at a URI, or of a property file that a reference names."""
        ...


def references(place: Place, deep: int = 0) -> Iterator[tuple[Place, Reference]]:
    """Every reference within a value, each with where it stands; malformed ones are errors."""
    if deep > _DEEP:
        raise place.wrong(f"at most {_DEEP} levels")
    value = place.value
    if isinstance(value, list):
        for one in place.items(10_000):
            yield from references(one, deep + 1)
    elif isinstance(value, dict):
        function = next((name for name in ("Get", *_FUNCTIONS) if name in value), None)
        if function is None:
            for name in value:
                yield from references(place[name], deep + 1)
            return
        if len(value) != 1:
            raise place.wrong(f"{function} alone in its object")
        inner = place[function]
        if function == "Get":
            yield inner, Reference.of(inner)
        elif function == "Std:Join":
            inner.keys(frozenset({"On", "Values"}), frozenset({"Values"}))
            inner["On"].text(r"[\s\S]{0,64}", "a text of at most 64 characters")
            yield from references(inner["Values"], deep + 1)
        else:
            yield from _json_get(inner, deep)


def _json_get(inner: Place, deep: int) -> Iterator[tuple[Place, Reference]]:
    inner.keys(frozenset({"PropertyFile", "S3Uri", "Path", "Step"}), frozenset({"Path"}))
    if ("PropertyFile" in inner) == ("S3Uri" in inner):
        raise inner.wrong("either PropertyFile or S3Uri")
    if not _parts(inner["Path"].text()):
        raise inner["Path"].wrong("a path such as metrics.auroc, curve[0] or ['a name']")
    if "PropertyFile" in inner:
        file = inner["PropertyFile"]
        found = list(references(file, deep + 1))
        if len(found) != 1 or not found[0][1].path.startswith("PropertyFiles."):
            raise file.wrong('{"Get": "Steps.STEP.PropertyFiles.NAME"}')
        yield from found
    else:
        yield from references(inner["S3Uri"], deep + 1)


def resolve(value: Any, scope: Scope) -> Any:
    """The value with every reference replaced; the definition was checked before.

    Raises:
        Invalid: ``pipelines.json_get``, when a document has no such path.
    """
    if isinstance(value, list):
        return [resolve(one, scope) for one in value]
    if not isinstance(value, dict):
        return value
    if "Get" in value:
        return scope.value(Reference.of(Place("Get", value["Get"])))
    if "Std:Join" in value:
        said = value["Std:Join"]
        return str(said.get("On", "")).join(_text(resolve(one, scope)) for one in said["Values"])
    if "Std:JsonGet" in value:
        said = value["Std:JsonGet"]
        at = said["PropertyFile"] if "PropertyFile" in said else said["S3Uri"]
        return follow(scope.document(resolve(at, scope)), said["Path"])
    return {name: resolve(one, scope) for name, one in value.items()}


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def follow(document: Any, path: str) -> Any:
    """What lies at a path of a JSON document, for example ``metrics.auroc.value`` or ``curve[0]``."""
    value = document
    for part in _parts(path) or ():
        named = isinstance(value, dict) and isinstance(part, str) and part in value
        numbered = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not named and not numbered:
            raise Invalid("pipelines.json_get", "The document has nothing at the Path of Std:JsonGet; look at both.")
        value = value[part]
    return value


def _parts(path: str) -> list[str | int] | None:
    """The steps of a path, None when it is none; a leading ``$`` is the document."""
    rest = path.removeprefix("$")
    parts: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _PART.match(rest, at)
        if found is None or (found[1] and at and rest[at] != "."):
            return None
        parts.append(int(found[2]) if found[2] else next(one for one in found.group(1, 3, 4) if one is not None))
        at = found.end()
    return parts if parts or path == "$" else None
