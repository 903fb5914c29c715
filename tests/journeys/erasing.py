"""What the journey of an erasure plants, and how it searches every byte that a workspace can give."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sqlalchemy

from carelake.core.permit import mint
from conftest import SilentLog

_ZONES = ("landing", "clinical", "deidentified", "lake", "features", "models")

# -- what is planted -------------------------------------------------------------------------------------------------


def read_rows(source: Path) -> list[dict[str, Any]]:
    paths = sorted((source / "fhir").glob("*.ndjson"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def plant(rows: list[dict[str, Any]], chosen: list[str], folder: Path) -> set[str]:
    """Write files in which the chosen patients carry words of their own; these words."""
    words: set[str] = set()
    again, alone = [], []
    folder.mkdir(parents=True)
    for number, key in enumerate(chosen):
        (patient,) = [row for row in rows if row["resourceType"] == "Patient" and row["id"] == key]
        family, given, mrn, born = (
            f"Zqx{number}wvyre",
            f"Kjh{number}qpeth",
            f"MR77301-{number:05}",
            f"18{number + 10}-02-03",
        )
        words |= {family, given, mrn, born, patient["identifier"][0]["value"]}
        changed = {
            **patient,
            "name": [{"family": family, "given": [given]}],
            "identifier": [{"system": "urn:test:mrn", "value": mrn}, patient["identifier"][0]],
            "birthDate": born,
        }
        again.append(changed)
        again.append({**changed, "active": True})  # so that the words are in the past, too
        # As Synthea has it: a file of one person, called by the name, in which also somebody else's resource is.
        house = {"resourceType": "Organization", "id": f"house-{number}", "name": "x"}
        both = [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in (again[-1], house)]
        text = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": both})
        (folder / f"{given}_{family}.json").write_text(text)
        note = f"fnord{number}blatt"
        words.add(note)
        told = {
            "text": f"{given} {family}: {note}",
            "coding": [{"system": "urn:test", "code": note, "display": note}],
        }
        alone.append(
            {"resourceType": "Condition", "id": f"c-{key}", "subject": {"reference": f"Patient/{key}"}, "code": told}
        )
        words.add(f"c-{key}")
    survivors = [row["id"] for row in rows if row["resourceType"] == "Patient" and row["id"] not in chosen]
    (folder / "again.ndjson").write_text("\n".join(json.dumps(row) for row in [*again, *shared(chosen, survivors)]))
    for row in alone:
        # A Bundle of one person, in pretty lines, in a file that has the name of the person.
        entry = [
            {
                "fullUrl": f"http://test/fhir/Condition/{row['id']}",
                "resource": row,
                "request": {"method": "PUT", "url": f"Condition/{row['id']}"},
            }
        ]
        text = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entry}, indent=2)
        (folder / f"{row['id']}.json").write_text(text)
    mixed = [
        {
            "fullUrl": f"urn:uuid:{one}",
            "resource": {
                "resourceType": "Flag",
                "id": f"f-{one}",
                "status": "active",
                "code": {"text": "x"},
                "subject": {"reference": f"Patient/{one}"},
            },
        }
        for one in [chosen[0], survivors[0]]
    ]
    words.add(f"f-{chosen[0]}")
    (folder / "mixed.json").write_text(
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": mixed}, indent=1)
    )
    bad = [
        f'{{"resourceType":"Patient","id":"{chosen[0]}","name":"Zqx0wvyre"}}',
        f'{{"resourceType":"Basic","id":"ok-{0}","code":{{"text":"y"}}}}',
    ]
    (folder / "bad.ndjson").write_text("\n".join(bad))
    return words


def shared(chosen: list[str], others: list[str]) -> Iterator[dict[str, Any]]:
    """Resources of several patients and of none that name the chosen ones."""
    one, other = f"Patient/{chosen[0]}", f"Patient/{others[0]}"
    both = [{"reference": one, "display": "Zqx0wvyre"}, {"reference": other}]
    yield {
        "resourceType": "Group",
        "id": "g1",
        "type": "person",
        "actual": True,
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Zqx0wvyre</div>'},
        "member": [{"entity": b} for b in both],
    }
    yield {
        "resourceType": "Group",
        "id": "g1",
        "type": "person",
        "actual": False,
        "member": [{"entity": b} for b in both],
    }
    yield {
        "resourceType": "List",
        "id": "l1",
        "status": "current",
        "mode": "working",
        "entry": [{"item": b} for b in both],
    }
    yield {"resourceType": "Account", "id": "a1", "status": "active", "subject": both}
    yield {
        "resourceType": "Coverage",
        "id": "v1",
        "status": "active",
        "beneficiary": both[1],
        "subscriber": both[0],
        "payor": [{"reference": other}],
    }
    yield {
        "resourceType": "Provenance",
        "id": "p1",
        "recorded": "2020-01-01T00:00:00Z",
        "target": [{"reference": f"Condition/c-{chosen[0]}"}],
        "agent": [{"who": {"display": "somebody"}}],
    }
    yield {
        "resourceType": "Provenance",
        "id": "p2",
        "recorded": "2020-01-01T00:00:00Z",
        "target": [{"reference": f"Condition/c-{chosen[0]}"}, {"reference": other}],
        "agent": [
            {"who": {"display": "x"}},
            {"who": {"identifier": {"system": "urn:test:mrn", "value": "MR77301-00000"}}},
        ],
    }
    yield {
        "resourceType": "AuditEvent",
        "id": "e1",
        "type": {"code": "rest"},
        "recorded": "2020-01-01T00:00:00Z",
        "agent": [{"requestor": True}],
        "source": {"observer": {"display": "x"}},
        "entity": [{"what": b} for b in both],
    }
    yield {
        "resourceType": "Basic",
        "id": "b1",
        "code": {"text": "x"},
        "extension": [{"url": "http://test", "valueReference": both[0]}],
    }


# -- what is searched ------------------------------------------------------------------------------------------------


def everything(home: Any) -> Iterator[tuple[str, bytes]]:
    """Every byte that the workspace can give, with where it lies."""

    with home.opened() as workspace:
        permit = full_permit(workspace)
        with workspace.vault.database.reading(permit) as tx:
            for table in sqlalchemy.inspect(tx).get_table_names():
                for row in tx.exec_driver_sql(f'SELECT * FROM "{table}"'):
                    yield f"table {table}", b"\x00".join(v if isinstance(v, bytes) else str(v).encode() for v in row)
            seq = 0
            while page := workspace.resources.changes(permit, seq, 2000):
                seq = page[-1].seq
                for one in page:
                    yield f"version {one.type}", f"{one.type}/{one.id} {one.owner} ".encode() + one.body
        for zone in _ZONES:
            for one in workspace.vault.objects.list(permit, zone):
                for version in workspace.vault.objects.versions(permit, zone, one.name):
                    data = workspace.vault.objects.get(permit, zone, one.name, version.version)
                    yield f"object of {zone}", one.name.encode() + b"\x00" + data
                    if data[:4] == b"PAR1":
                        table = pq.read_table(io.BytesIO(data))
                        yield f"rows of {zone}", json.dumps(table.to_pylist(), default=str).encode()


def full_permit(workspace: Any) -> Any:

    grants = [f"{zone}:{verb}" for zone in (*_ZONES, "rows") for verb in ("read",)]
    said = {
        "act": "a" * 32,
        "principal": "t",
        "account": "production",
        "purpose": "HOPERAT",
        "action": "t",
        "target": "t",
    }
    expires = workspace.vault.clock.now() + timedelta(hours=1)
    return mint(**said, grants=grants, scope=(), expires=expires, log=SilentLog())


def hits(home: Any, needles: set[str]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    wanted = [(one, one.encode()) for one in needles]
    for where, data in everything(home):
        for text, raw in wanted:
            if raw in data:
                found.setdefault(where, set()).add(text)
    return {where: sorted(texts)[:5] for where, texts in found.items()}


def others(home: Any, gone: set[str]) -> dict[str, str]:
    """Digest of each version that is not of the erased and not named as changed, by type, id and version."""
    told = {}
    with home.opened() as workspace:
        permit = full_permit(workspace)
        seq = 0
        while page := workspace.resources.changes(permit, seq, 2000):
            seq = page[-1].seq
            for one in page:
                if one.owner not in gone and one.id not in _CHANGED:
                    told[f"{one.type}/{one.id}/{one.version}"] = hashlib.sha256(one.body).hexdigest()
    return told


_CHANGED = {"g1", "l1", "a1", "v1", "p1", "p2", "e1", "b1"}
