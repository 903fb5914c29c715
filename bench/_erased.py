"""What the bench of erasures plants, and how it looks through every byte that a workspace can give.

`Look.all` goes once over all tables, all versions, all objects and all rows of the lake. It counts where words of the
erased are found, and sums hashes of everything that is not theirs: the same sums before and after say that all of it
is there still, once and unchanged. The hashes are Python's and DuckDB's own, of 64 bits: they are to find mistakes.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

__all__ = ["CHANGED", "Look", "plant", "tokens"]

ZONES = ("landing", "clinical", "deidentified", "lake", "features", "models")
RECORD = (
    "counter", "display", "index_registry", "index_state", "ix_date", "ix_owner", "ix_part", "ix_position",
    "ix_quantity", "ix_reference", "ix_string", "ix_token", "ix_uri", "ix_word", "origin_run", "patient_key",
    "resource", "resource_version", "symbol",
)  # fmt: skip
"""Tables of which everything that is somebody else's stays as it is; the others tell of acts, files and jobs."""
CHANGED = re.compile(r"(?:kin|ward|all)-\d+")
"""Ids of what is planted at others and names the erased: it stays without them."""
_WORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]{7,}")
_BLOCK, _OVERLAP, _PAGE = 1 << 20, 256, 5_000
_MASK = (1 << 64) - 1


# -- what is planted -------------------------------------------------------------------------------------------------


def plant(source: Path, share: float, out: Path) -> tuple[list[str], set[str]]:
    """Choose patients of a synthetic hospital and write files in which words of theirs stand that nobody else has.

    Each gets a Patient in two more versions (name, number, birthday of its own), a Condition in a Bundle that is a
    file of its own or shared with somebody who stays, a Coverage of somebody who stays, and a Provenance of nobody
    else. One Group and one List hold them all among others. Some lines are refused.

    Returns their ids, and all words that must be gone afterwards: those, and the ids of all their resources.
    """
    lines = list(_lines(source, b'{"resourceType":"Patient"'))
    patients = {str(one["id"]): one for one in map(json.loads, lines)}
    chosen = sorted(random.Random(5).sample(sorted(patients), max(1, round(len(patients) * share))))
    staying = sorted(set(patients).difference(chosen))[: len(chosen)]
    words = {*chosen, *_ids(source, chosen)}
    out.mkdir(parents=True)
    again, entries = [], []
    for number, (one, other) in enumerate(zip(chosen, staying, strict=True)):
        family, given, mrn = f"Zqxwvyre{number:05}", f"Kjhqpeth{number:05}", f"MR77301-{number:05}"
        born = f"{1700 + number // 336}-{1 + number // 28 % 12:02}-{1 + number % 28:02}"
        told = patients[one]
        named = {"name": [{"family": family, "given": [given]}], "birthDate": born}
        named["identifier"] = [{"system": "urn:test:mrn", "value": mrn}, *told["identifier"]]
        words |= {
            family,
            given,
            mrn,
            born,
            f"fnordnote-{number:05}",
            f"theircondition-{number:05}",
            f"provenance-told-{number:05}",
        }
        again += [{**told, **named}, {**told, **named, "active": True}]
        again.append({
            "resourceType": "Coverage", "id": f"kin-{number:05}", "status": "active", "beneficiary": _to(other),
            "subscriber": _to(one), "payor": [_to(other)],
        })  # fmt: skip
        again.append({
            "resourceType": "Provenance", "id": f"provenance-told-{number:05}", "recorded": "2020-01-01T00:00:00Z",
            "target": [{"reference": f"Condition/theircondition-{number:05}"}], "agent": [{"who": {"display": "x"}}],
        })  # fmt: skip
        if number % 5 == 0:
            again.append({"resourceType": "Patient", "id": one, "name": family})  # refused
        note = f"fnordnote-{number:05}"
        code = {"text": f"{given} {family}: {note}", "coding": [{"system": "urn:t", "code": note, "display": note}]}
        theirs = {"resourceType": "Condition", "id": f"theircondition-{number:05}", "subject": _to(one), "code": code}
        flag = {"resourceType": "Flag", "id": f"flag-{number:05}", "status": "active", "code": {"text": "x"}}
        entries.append([theirs] if number % 2 else [theirs, {**flag, "subject": _to(other)}])
    many = [one for pair in zip(chosen, staying, strict=True) for one in pair]
    again.append({
        "resourceType": "Group", "id": "all-0", "type": "person", "actual": True,
        "member": [{"entity": _to(one)} for one in many],
    })  # fmt: skip
    again.append({
        "resourceType": "List", "id": "ward-0", "status": "current", "mode": "working",
        "entry": [{"item": _to(one)} for one in many],
    })  # fmt: skip
    (out / "again.ndjson").write_text("\n".join(json.dumps(row) for row in again) + "\n")
    for number, rows in enumerate(entries):
        told = [{"fullUrl": f"http://test/fhir/{r['resourceType']}/{r['id']}", "resource": r} for r in rows]
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": told}
        (out / f"theircondition-{number:05}.json").write_text(json.dumps(bundle, indent=1))
    return chosen, words


def _to(patient: str) -> dict[str, str]:
    return {"reference": f"Patient/{patient}"}


def _lines(source: Path, start: bytes = b"{") -> Iterator[bytes]:
    for path in sorted((source / "fhir").glob("*.ndjson")):
        with path.open("rb") as file:
            yield from (line for line in file if line.startswith(start))


def _ids(source: Path, chosen: Iterable[str]) -> Iterator[str]:
    """Ids of the resources that name one of them."""
    wanted = {one.encode() for one in chosen}
    named, own = re.compile(rb'"Patient/([^"]+)"'), re.compile(rb'"id":"([^"]+)"')
    for line in _lines(source):
        if not wanted.isdisjoint(named.findall(line)):
            found = own.search(line)
            assert found is not None
            yield found[1].decode()


def tokens(text: bytes) -> list[bytes]:
    """The words of a text, as they are looked for."""
    return _WORD.findall(text)


# -- what is looked through ------------------------------------------------------------------------------------------


class Look:
    """One look through a workspace.

    Attributes:
        found: hits by place.
        sums: of everything that is not of the erased, by table, type or place: number and sum of hashes.
    """

    def __init__(self, workspace: Any, words: Iterable[str]) -> None:
        if sys.flags.hash_randomization:
            raise SystemExit("Set PYTHONHASHSEED=0: sums of two processes are compared.")
        self._workspace = workspace
        self._permit = permit(workspace)
        self._words = {one.encode() for one in words}
        self.found: Counter[str] = Counter()
        self.sums: dict[str, list[int]] = {}
        self.gone: set[int] = set()

    def all(self, gone: set[int] | None = None) -> dict[str, Any]:
        """Look everywhere.

        Args:
            gone: numbers of the versions that are theirs or are changed, as the look before the erasure told them.
        """
        self.gone = self._theirs() if gone is None else gone
        self._tables()
        self._versions()
        self._objects()
        self._lake()
        return {"found": dict(self.found), "sums": self.sums, "gone": sorted(self.gone)}

    def _has(self, text: bytes) -> bool:
        return not self._words.isdisjoint(_WORD.findall(text))

    def _add(self, place: str, number: int, total: int) -> None:
        held = self.sums.setdefault(place, [0, 0])
        held[0] += number
        held[1] = (held[1] + total) & _MASK

    def _stream(self, sql: str) -> Iterator[list[tuple[Any, ...]]]:
        with self._workspace.vault.database.reading(self._permit) as tx:
            driver: Any = tx.connection.driver_connection
            # Of PostgreSQL a cursor of the server, or all rows come at once.
            named = {"name": "look"} if tx.dialect.name == "postgresql" else {}
            with closing(driver.cursor(**named)) as cursor:
                cursor.execute(sql)
                while page := cursor.fetchmany(_PAGE):
                    yield [tuple(row) for row in page]

    def _theirs(self) -> set[int]:
        gone: set[int] = set()
        for page in self._stream("SELECT seq, id FROM resource_version"):
            gone.update(seq for seq, one in page if one.encode() in self._words or CHANGED.fullmatch(one))
        return gone

    def _tables(self) -> None:
        import sqlalchemy

        with self._workspace.vault.database.reading(self._permit) as tx:
            seen = sqlalchemy.inspect(tx)
            columns = {name: [one["name"] for one in seen.get_columns(name)] for name in seen.get_table_names()}
        for name, names in sorted(columns.items()):
            at = names.index("seq") if "seq" in names else -1
            for page in self._stream(
                f'SELECT {", ".join(f"{chr(34)}{one}{chr(34)}" for one in names)} FROM "{name}"'
            ):
                self._page(name, page, at)

    def _page(self, name: str, page: list[tuple[Any, ...]], at: int) -> None:
        dirty = self._has(b"\n".join(map(_text, page)))
        clean = page
        if dirty:
            clean = [row for row in page if not self._has(_text(row))]
            self.found[f"table {name}"] += len(page) - len(clean)
        if name in RECORD:
            if at >= 0:
                clean = [row for row in clean if row[at] not in self.gone]
            self._add(f"table {name}", len(clean), sum(map(hash, map(tuple, map(_plain, clean)))))

    def _versions(self) -> None:
        seq = 0
        while page := self._workspace.resources.changes(self._permit, seq, _PAGE):
            seq = page[-1].seq
            told = [f"{one.type}/{one.id} {one.owner} ".encode() + one.body for one in page]
            if self._has(b"\n".join(told)):
                self.found["versions"] += sum(map(self._has, told))
            kept = [one for one in page if one.seq not in self.gone]
            self._add("versions", len(kept), sum(hash((o.type, o.id, o.version, o.deleted, o.body)) for o in kept))

    def _objects(self) -> None:
        vault = self._workspace.vault
        for zone in ZONES:
            for one in vault.objects.list(self._permit, zone):
                for version in vault.objects.versions(self._permit, zone, one.name):
                    self.found[f"objects of {zone}"] += self._has(one.name.encode())
                    with vault.objects.open(self._permit, zone, one.name, version.version) as stream:
                        self._object(zone, stream)

    def _object(self, zone: str, stream: Any) -> None:
        place, kept, lined = f"objects of {zone}", b"", False
        while block := stream.read(_BLOCK):
            text = kept + block
            first = stream.tell() == len(block)
            lined = zone == "landing" and (text.startswith((b'{"resourceType":', b"{ ")) if first else lined)
            cut = text.rfind(b"\n") + 1 if lined else max(0, len(text) - _OVERLAP)
            if cut == 0:
                kept = text
                continue
            text, kept = text[:cut], text[cut:]
            self._piece(place, text, lined)
        self._piece(place, kept, lined)

    def _piece(self, place: str, text: bytes, lined: bool) -> None:
        """Lines of resources are summed, but for theirs and what was blanked."""
        if not lined:
            self.found[place] += self._has(text)
            return
        lines = text.splitlines()
        if self._has(text):
            clean = [line for line in lines if not self._has(line)]
            self.found[place] += len(lines) - len(clean)
            lines = clean
        lines = [line for line in lines if line.strip(b"{} \n")]
        self._add(place, len(lines), sum(map(hash, lines)))

    def _lake(self) -> None:
        import duckdb

        from carelake.lake.iceberg.catalog import VaultCatalog

        catalog = VaultCatalog(self._workspace.vault, self._permit)
        connection = duckdb.connect()
        connection.execute("CREATE TABLE gone (seq BIGINT)")
        import pyarrow as pa

        numbers = pa.table({"seq": pa.array(sorted(self.gone), pa.int64())})
        connection.register("numbers", numbers)
        connection.execute("INSERT INTO gone SELECT seq FROM numbers")
        for _, name in catalog.list_tables():
            table = catalog.load_table((self._permit.account, name))
            if table.current_snapshot() is None:
                continue
            for batch in table.scan().to_arrow_batch_reader():
                texts = [_joined(column) for column in _leaves(batch)]
                self.found["rows of lake"] += sum(map(self._has, texts))
                connection.register("batch", pa.Table.from_batches([batch]))
                number, total = connection.execute(
                    "SELECT count(*), sum(hash(batch)::HUGEINT) FROM batch WHERE seq NOT IN (SELECT seq FROM gone)"
                ).fetchall()[0]
                connection.unregister("batch")
                self._add(f"lake {name}", number, int(total or 0))
            for file in table.inspect.files().to_pylist():
                bounds = [*(file["lower_bounds"] or ()), *(file["upper_bounds"] or ())]
                self.found["bounds of lake"] += self._has(b"\n".join(value for _, value in bounds))


def _text(row: tuple[Any, ...]) -> bytes:
    return b" ".join(
        one if isinstance(one, bytes) else one.encode("utf-8", "surrogateescape")
        for one in row
        if isinstance(one, (bytes, str))
    )


def _plain(row: tuple[Any, ...]) -> Iterable[Any]:
    return (bytes(one) if isinstance(one, memoryview) else one for one in row)


def _leaves(batch: Any) -> Iterator[Any]:
    for column in batch.columns:
        yield from _strings(column)


def _strings(array: Any) -> Iterator[Any]:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_struct(kind):
        for at in range(kind.num_fields):
            yield from _strings(array.field(at))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _strings(array.values)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array


def _joined(array: Any) -> bytes:
    """All texts of an array, with a space between two."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = array.drop_null().cast(pa.large_string())
    listed = pa.LargeListArray.from_arrays(pa.array([0, len(kept)], pa.int64()), kept)
    return bytes(pc.binary_join(listed, pa.scalar(" ", pa.large_string()))[0].as_buffer())


def permit(workspace: Any) -> Any:
    """What opens everything; its act is not kept."""
    from carelake.core.permit import mint

    said = dict.fromkeys(("principal", "purpose", "action", "target"), "bench")
    grants = [f"{zone}:read" for zone in (*ZONES, "rows")]
    expires = workspace.vault.clock.now() + timedelta(hours=4)
    return mint(act="a" * 32, account="production", grants=grants, scope=(), expires=expires, log=_Silent(), **said)


class _Silent:
    """Takes notes and keeps none."""

    def _nothing(self, *refs: Any, **facts: Any) -> None:
        return None

    read = wrote = patients = count = key = note = flush = _nothing
