"""Exports of the sealed trail: as it was sealed with its proofs, as FHIR AuditEvents, or as OCSF events.

    jsonl       manifest.json   what this is, and how much
                trail.jsonl     per segment: header line, act lines as sealed (not with a filter), {"signature"}
                acts.jsonl      with a filter: {"act","index","proof","segment"} per act, with its inclusion proof
                patients.jsonl  {"patients","seq"} of acts that only count and digest their patients
                head.json, anchors.jsonl, keys/trail-vN.pem, verify.py
    auditevent  manifest.json, AuditEvent.ndjson
    ocsf        manifest.json, api_activity.jsonl

Only sealed acts are exported. Everything streams; a segment is the most that is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from carelake.audit import auditevent, merkle, ocsf
from carelake.audit.heads import Heads
from carelake.audit.readings import Acts, Filter
from carelake.audit.restores import Restores
from carelake.audit.sealing import stored_segment
from carelake.audit.segments import Segment
from carelake.audit.signing import TrailKey
from carelake.audit.tables import act
from carelake.audit.tables import segment as table
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Corrupt
from carelake.core.permit import Permit
from carelake.vault.outside import ExportFolder
from carelake.vault.workspace import Vault

__all__ = ["FORMATS", "Exported", "Exporter", "Format"]

Format = Literal["jsonl", "auditevent", "ocsf"]
FORMATS: tuple[Format, ...] = ("jsonl", "auditevent", "ocsf")

_FILES = {"auditevent": "AuditEvent.ndjson", "ocsf": "api_activity.jsonl"}
_PAGE = 10_000


@dataclass
class Exported:
    """What was written.

    Attributes:
        acts: acts that were exported; events: lines of the event file, which can be more (one per patient).
        unsealed: acts that no segment covers yet, and that are not in the export.
    """

    format: Format
    mode: str
    segments: int = 0
    acts: int = 0
    events: int = 0
    unsealed: int = 0
    first: str = ""
    last: str = ""
    filter: dict[str, str] = field(default_factory=dict)


class Exporter:
    """One export.

    Args:
        permit: `Gate.sealing`'s, which opens the audit zone; the caller has passed the gate for ``audit:export``.
        progress: told how many acts were looked at, of how many.
    """

    def __init__(
        self,
        vault: Vault,
        heads: Heads,
        permit: Permit,
        wanted: Filter,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._vault = vault
        self._heads = heads
        self._permit = permit
        self._wanted = wanted
        self._progress = progress

    def write(self, folder: ExportFolder, format_: Format) -> Exported:
        """Write the files of an export.

        Raises:
            Conflict: ``audit.nothing_sealed``.
            Corrupt: ``audit.segment``: a segment is not there or not one.
        """
        mode = "events" if format_ != "jsonl" else "whole" if self._wanted.all() else "proofs"
        told = Exported(format_, mode, filter=self._wanted.told())
        # The heads first: what they name was committed before, so a later snapshot holds it.
        heads = self._outside() if format_ == "jsonl" else {}
        with self._vault.database.ledger_reading() as connection:
            rows = [dict(row) for row in connection.execute(select(table).order_by(table.c.number)).mappings()]
            if not rows:
                raise Conflict("audit.nothing_sealed", "No act is sealed yet, so there is nothing to export.")
            sealed = rows[-1]["last"]
            told.unsealed = connection.execute(select(func.count()).where(act.c.seq > sealed)).scalar_one()
            if mode == "events":
                self._events(connection, folder, format_, rows, told)
            else:
                self._proved(connection, folder, rows, told)
        for name, lines in heads.items():
            folder.write(name, lines)
        folder.write("manifest.json", [canonical.dump_pretty(self._manifest(told)).encode()])
        return told

    # -- jsonl ----------------------------------------------------------------------------------------------------

    def _proved(
        self, connection: Connection, folder: ExportFolder, rows: list[dict[str, Any]], told: Exported
    ) -> None:
        digested: list[int] = []
        if told.mode == "whole":
            folder.write("trail.jsonl", self._whole(rows, told, digested))
        else:
            folder.write("trail.jsonl", self._headers(rows, told))
            folder.write("acts.jsonl", self._chosen(connection, rows, told, digested))
        folder.write("patients.jsonl", _patients(connection, digested))
        for version, pem in TrailKey(self._vault.keyring).public().items():
            folder.write(f"keys/trail-v{version}.pem", [pem])
        folder.write("verify.py", [resources.files("carelake.audit").joinpath("verifier.py").read_bytes()])

    def _outside(self) -> dict[str, list[bytes]]:
        head = self._vault.read_head()
        anchors = [one + b"\n" for one in Restores(self._vault).ours(self._heads.anchored())]
        return {"head.json": [head if head is not None else b"{}", b"\n"], "anchors.jsonl": anchors}

    def _whole(self, rows: list[dict[str, Any]], told: Exported, digested: list[int]) -> Iterator[bytes]:
        for sealed in self._segments(rows):
            told.segments += 1
            told.acts += len(sealed.lines)
            yield sealed.header_line + b"\n"
            for seq, line in enumerate(sealed.lines, sealed.header["first"]):
                if b'"patients_digest"' in line:
                    digested.append(seq)
                yield line + b"\n"
            yield _signature(sealed)
            told.first = told.first or sealed.header["at"]
            told.last = sealed.header["at"]
            self._progress(sealed.header["last"], rows[-1]["last"])

    def _headers(self, rows: list[dict[str, Any]], told: Exported) -> Iterator[bytes]:
        for sealed in self._segments(rows):
            told.segments += 1
            yield sealed.header_line + b"\n" + _signature(sealed)

    def _chosen(
        self, connection: Connection, rows: list[dict[str, Any]], told: Exported, digested: list[int]
    ) -> Iterator[bytes]:
        for sealed, index in self._found(connection, rows, told):
            line = sealed.lines[index]
            if b'"patients_digest"' in line:
                digested.append(sealed.header["first"] + index)
            yield proof_line(sealed, index) + b"\n"

    # -- events ---------------------------------------------------------------------------------------------------

    def _events(
        self,
        connection: Connection,
        folder: ExportFolder,
        format_: Format,
        rows: list[dict[str, Any]],
        told: Exported,
    ) -> None:
        workspace = self._vault.settings.workspace
        make = auditevent.events if format_ == "auditevent" else ocsf.events

        def lines() -> Iterator[bytes]:
            for sealed, index in self._found(connection, rows, told):
                said = canonical.load(sealed.lines[index])
                for event in make(said, workspace=workspace, segment=sealed.header["number"]):
                    told.events += 1
                    yield canonical.dump(event) + b"\n"

        folder.write(_FILES[format_], lines())

    # -- inside ---------------------------------------------------------------------------------------------------

    def _found(
        self, connection: Connection, rows: list[dict[str, Any]], told: Exported
    ) -> Iterator[tuple[Segment, int]]:
        """The sealed acts that the filter lets through, in order; only their segments are opened."""
        query = self._wanted.apply(select(act.c.seq)).where(act.c.seq <= rows[-1]["last"]).order_by(act.c.seq)
        at, sealed, opened = 0, None, -1
        for (seq,) in connection.execute(query, execution_options={"yield_per": _PAGE}):
            while rows[at]["last"] < seq:
                at += 1
            if opened != at:
                opened, sealed = at, self._open(rows[at])
                told.segments += told.mode == "events"
                self._progress(rows[at]["first"], rows[-1]["last"])
            index = seq - rows[at]["first"]
            if sealed is None or index >= len(sealed.lines):
                raise _not_one(rows[at]["number"])
            told.acts += 1
            told.first = told.first or rows[at]["at"]
            told.last = rows[at]["at"]
            yield sealed, index

    def _segments(self, rows: list[dict[str, Any]]) -> Iterator[Segment]:
        return (self._open(row) for row in rows)

    def _open(self, row: dict[str, Any]) -> Segment:
        found = stored_segment(self._vault, self._permit, row["number"])
        if found is None:
            raise _not_one(row["number"])
        return found

    def _manifest(self, told: Exported) -> dict[str, Any]:
        return {
            "kind": "carelake-trail",
            "format": 1,
            "as": told.format,
            "mode": told.mode,
            "workspace": self._vault.settings.workspace,
            "exported": iso(self._vault.clock.now()),
            "segments": told.segments,
            "acts": told.acts,
            "events": told.events,
            "unsealed": told.unsealed,
            "first": told.first,
            "last": told.last,
            "filter": told.filter,
        }


def proof_line(sealed: Segment, index: int) -> bytes:
    """One act with the proof that it is in its segment."""
    proof = [step.hex() for step in merkle.inclusion(sealed.lines, index)]
    said = {"act": sealed.lines[index].decode(), "segment": sealed.header["number"], "index": index, "proof": proof}
    return canonical.dump(said)


def _signature(sealed: Segment) -> bytes:
    return canonical.dump({"signature": sealed.signature.hex()}) + b"\n"


def _patients(connection: Connection, seqs: list[int]) -> Iterator[bytes]:
    acts = Acts(connection)
    for seq in seqs:
        yield canonical.dump({"seq": seq, "patients": acts.patients(seq)}) + b"\n"


def _not_one(number: int) -> Corrupt:
    return Corrupt(
        "audit.segment", f"Segment {number} is missing or not one; `carelake audit verify` says more.", segment=number
    )
