"""One text to one record: parsed, validated, indexed and packed, or refused with a reason. What workers do."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zstandard

from carelake.core import canonical
from carelake.core.errors import CarelakeError
from carelake.core.ids import derived_uuid
from carelake.core.records import Parsed, Rejected
from carelake.fhir import compartment, definitions, references
from carelake.fhir.search import BASE, Registry, extract
from carelake.fhir.validate import Mode, checker
from carelake.ingest.batches import Batch, Entry, Outcome
from carelake.ingest.keys import DUPLICATE, quotes, repeats

__all__ = ["VERSION", "Parser", "without_gc"]

VERSION = 2
"""Raised when the same text may come out otherwise, so that landings read by an older parser are read again."""

_LEVEL = 3
_QUOTES_OF_ID = 4


class _Refused(Exception):
    def __init__(self, code: str, message: str, path: str = "") -> None:
        self.code, self.message, self.path = code, message, path


class Parser:
    """Parses batches; one for each process.

    Args:
        max_depth: nesting beyond this is refused (`core.settings.IngestSettings`).
        level: what is asked of each resource, the setting ``ingest.validation``.
        registry: what index values are extracted by.
    """

    def __init__(self, max_depth: int, level: Mode = "structure", registry: Registry = BASE) -> None:
        self._registry = registry
        self._level = level
        self._check = checker(level, max_depth=max_depth)
        self._pack = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress

    def parse(self, batch: Batch) -> Outcome:
        """Every entry of the batch, in order. Never raises for what the text holds."""
        outcome = Outcome([], {})
        for index, entry in enumerate(batch.entries):
            record = entry.refused or self.one(entry, batch.seed)
            if isinstance(record, Rejected):
                outcome.refused[index] = record
            else:
                outcome.parsed.append(record)
        return outcome

    def one(self, entry: Entry, seed: str) -> Parsed | Rejected:
        """One entry."""
        try:
            return self._record(entry, seed)
        except _Refused as refused:
            code, message, path = refused.code, refused.message, refused.path
        except CarelakeError as error:
            code, message, path = error.code, error.message, ""
        except RecursionError:
            code, message, path = "core.depth", "The JSON is nested too deeply to be a clinical document.", ""
        except ArithmeticError:
            code, message, path = "ingest.number", "A number is beyond what can be represented.", ""
        except Exception as error:
            # Hostile text must never stop the rest of its file; the type names the fault without its content.
            code, path = "ingest.unforeseen", ""
            message = f"The resource made the reader fail ({type(error).__name__}); please report this."
            if self._level == "minimal":
                code, message = "ingest.no_index", "The resource is not structured as R4 has it: it has no index."
        return Rejected(entry.offset, len(entry.data), entry.line, entry.position, path, code, message)

    def _record(self, entry: Entry, seed: str) -> Parsed:
        resource = canonical.load(entry.data)
        kind = _kind(resource)
        added = 0
        if "id" not in resource:
            resource["id"] = entry.given_id or derived_uuid(seed, str(entry.position))
            added = _QUOTES_OF_ID
        if entry.mapping:
            references.rewrite(resource, entry.mapping)
        if (issue := self._check(resource)) is not None:
            raise _Refused(f"fhir.{issue.code}", issue.message, issue.expression)
        text = canonical.dump(resource)
        # What a repeated key held is gone from the tree and its quotes with it; links are replaced quote for quote.
        if quotes(entry.data) + added != text.count(b'"') and repeats(entry.data):
            raise _Refused(*DUPLICATE)
        return Parsed(
            kind,
            resource["id"],
            compartment.owner(resource),
            self._pack(text),
            hashlib.sha256(text).digest(),
            extract(resource, self._registry, loose=self._level == "minimal"),
            entry.offset,
            len(entry.data),
            entry.line,
            entry.position,
        )


def _kind(resource: Any) -> str:
    if not isinstance(resource, dict):
        raise _Refused("ingest.not_an_object", "The text is JSON but not an object; expected one FHIR resource.")
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        raise _Refused("ingest.no_type", "The object names no resourceType; expected one FHIR R4 resource.")
    if not definitions.is_resource(kind):
        raise _Refused("ingest.unknown_type", "The resourceType is not one of FHIR R4.", "resourceType")
    return kind


@contextmanager
def without_gc() -> Iterator[None]:
    """Parsed trees hold no cycles; the cycle collector would walk each of them for nothing (a third of the time)."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
