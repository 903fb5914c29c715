"""Hostile and broken files through ``carelake ingest``: quarantined at the right line, or refused with a clear error.

Whatever comes, the command ends with 0 or 2, keeps the good lines, counts every entry, stays small, and shows no
traceback.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MIB = 1 << 20
BOUND = 700 * MIB


@pytest.fixture(scope="module")
def home(small: Any, tmp_path_factory: Any) -> Iterator[Any]:
    made = small.home.copy(tmp_path_factory.mktemp("hostile") / "copy")
    yield made
    made.remove()


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A folder for the files of one test."""
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def person(key: str, **other: Any) -> bytes:
    return json.dumps({"resourceType": "Patient", "id": key, **other}).encode()


def ingest(home: Any, *paths: Path) -> Any:
    """What ingest says, after what must hold of every ingest."""
    done = home.run("ingest", *paths, "--json", expect=0)
    told = done.json
    assert told["read"] == told["stored"] + told["unchanged"] + told["quarantined"], told
    assert done.rss < BOUND, f"{done.rss / MIB:.0f} MiB"
    return told


def refusals(home: Any, path: Path) -> list[dict[str, Any]]:
    return [one for one in home.json("quarantine", "list") if one["source"] == str(path)]


def stored(home: Any, *keys: str) -> bool:
    bundle = home.json("search", f"Patient?_id={','.join(keys)}")
    return {entry["resource"]["id"] for entry in bundle.get("entry", [])} == set(keys)


DEEP = b'{"resourceType":"Patient","id":"x","extension":' + b"[" * 10_000 + b"]" * 10_000 + b"}"

LINES: dict[str, tuple[bytes, str]] = {
    "cut": (b'{"resourceType":"Patient","id":"x"', "core.json"),
    "utf8": (b'{"resourceType":"Patient","id":"x","name":[{"family":"\xff\xfe\xc0"}]}', "core.utf8"),
    "surrogate": (b'{"resourceType":"Patient","id":"x","name":[{"family":"\\ud800"}]}', "core.json"),
    "nan": (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":NaN}', "core.json"),
    "infinity": (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":-Infinity}', "core.json"),
    "huge": (
        b'{"resourceType":"Observation","id":"x","valueQuantity":{"value":1e9999999999999999999999}}',
        "core.json",
    ),
    "required": (b'{"resourceType":"Observation","id":"x"}', "fhir."),
    "deep": (DEEP, "core.depth"),
    "array": (b"[1,2,3]", "ingest.not_an_object"),
    "null": (b"null", "ingest.not_an_object"),
    "typeless": (b'{"id":"x"}', "ingest.no_type"),
    "type-number": (b'{"resourceType":5,"id":"x"}', "ingest.no_type"),
    "type-unknown": (b'{"resourceType":"Starship","id":"x"}', "ingest.unknown_type"),
    "type-path": (b'{"resourceType":"../Patient","id":"x"}', "ingest.unknown_type"),
    "type-wrong": (b'{"resourceType":"Patient","id":"x","name":"Smith"}', "fhir."),
    "list-wrong": (b'{"resourceType":"Patient","id":"x","gender":["male"]}', "fhir."),
    "element-unknown": (b'{"resourceType":"Patient","id":"x","colour":"red"}', "fhir."),
    "date-wrong": (b'{"resourceType":"Patient","id":"x","birthDate":"31.12.1999"}', "fhir."),
    "id-number": (b'{"resourceType":"Patient","id":7}', "fhir."),
    "id-empty": (b'{"resourceType":"Patient","id":""}', "fhir."),
    "id-path": (b'{"resourceType":"Patient","id":"../../etc/passwd"}', "fhir."),
    "id-dots": (b'{"resourceType":"Patient","id":"a/../b"}', "fhir."),
    "id-nul": (b'{"resourceType":"Patient","id":"a\\u0000b"}', "fhir."),
    "id-long": (person("x" * 100_000), "fhir."),
    "id-unicode": ('{"resourceType":"Patient","id":"пациент"}'.encode(), "fhir."),
    "id-newline": (b'{"resourceType":"Patient","id":"a\\nb"}', "fhir."),
    "binary": (bytes(range(1, 10)) + b"\x00\xfe", "core."),
    "twice": (b'{"resourceType":"Patient","id":"x"}{"resourceType":"Patient","id":"y"}', "core.json"),
}


def test_each_bad_line_is_named_and_every_good_line_is_kept(home: Any, drop: Path) -> None:
    path = drop / "mixed.ndjson"
    rows: list[bytes] = []
    for number, (bad, _) in enumerate(LINES.values()):
        rows += [person(f"good-{number}"), bad]
    path.write_bytes(b"\n".join([*rows, person("good-last")]) + b"\n")
    told = ingest(home, path)
    assert told["stored"] == len(LINES) + 1
    assert told["quarantined"] == len(LINES)
    found = refusals(home, path)
    assert [one["line"] for one in found] == [2 * n + 2 for n in range(len(LINES))]
    for (name, (_, code)), one in zip(LINES.items(), found, strict=True):
        assert one["code"].startswith(code), (name, one)
        assert one["message"], name
    assert stored(home, *(f"good-{n}" for n in range(len(LINES))), "good-last")
    assert stored(home, "x", "y") is False
    again = ingest(home, path)
    assert (again["stored"], again["quarantined"], again["unchanged"]) == (0, len(LINES), len(LINES) + 1)
    assert refusals(home, path) == found, "the same refusals are listed once"


def test_numbers_at_the_edge_are_kept_to_the_digit_all_the_way_to_the_lake(new_home: Any, drop: Path) -> None:
    home = new_home
    numbers = [
        "1.10",
        "1e-400",
        "1e400",
        "-1e99999999999999999",
        "0." + "1" * 5000,
        "9" * 4000 + ".5",
        "1E+2",
        "-0.0",
    ]
    path = drop / "numbers.ndjson"
    head = '{"resourceType":"Observation","status":"final","code":{"text":"edge"},"effectiveDateTime":"2020-01-01",'
    rows = [head + f'"id":"edge-{n}","valueQuantity":{{"value":{text}}}}}' for n, text in enumerate(numbers)]
    path.write_text("\n".join(rows))
    told = ingest(home, path)
    assert told["read"] == len(numbers)
    kept = [n for n in range(len(numbers)) if n + 1 not in {one["line"] for one in refusals(home, path)}]
    assert {0, 1, 2, 6, 7} <= set(kept)
    home.json("lake", "sync")
    shown = home.run("search", "Observation?_count=100", "--json", expect=0).out
    for n in kept:
        assert f'"value": {numbers[n]}\n' in shown
    assert home.json("search", "Observation?value-quantity=1.10")["total"] == 1
    assert home.json("search", "Observation?value-quantity=gt1e300&_sort=-value-quantity")["total"] >= 1


def test_a_truncated_gzip_keeps_its_whole_lines(home: Any, drop: Path) -> None:
    rng = random.Random(3)
    rows = [person(f"cut-{n}", name=[{"family": rng.randbytes(16).hex()}]) for n in range(2000)]
    packed = gzip.compress(b"\n".join(rows) + b"\n")
    path = drop / "cut.ndjson.gz"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    told = ingest(home, path)
    assert 1000 < told["stored"] < 1500
    assert told["quarantined"] in (1, 2)
    found = refusals(home, path)
    assert {one["line"] for one in found} <= {told["stored"] + 1, told["stored"] + 2}
    assert "ingest.truncated" in {one["code"] for one in found}
    assert stored(home, "cut-0", f"cut-{told['stored'] - 1}")


def test_a_damaged_gzip_keeps_what_comes_before(home: Any, drop: Path) -> None:
    rng = random.Random(5)
    rows = [person(f"bent-{n}", name=[{"family": rng.randbytes(16).hex()}]) for n in range(2000)]
    packed = bytearray(gzip.compress(b"\n".join(rows) + b"\n"))
    packed[len(packed) // 2] ^= 0xFF
    path = drop / "bent.ndjson.gz"
    path.write_bytes(packed)
    told = ingest(home, path)
    assert told["quarantined"] >= 1
    assert told["stored"] > 500
    assert "ingest.gzip" in {one["code"] for one in refusals(home, path)}


def test_a_zip_bomb_is_stopped(home: Any, drop: Path) -> None:
    """Some 2 GiB out of 2 MiB; a good line comes first."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    path = drop / "bomb.ndjson.gz"
    with path.open("wb") as out:
        out.write(squeeze.compress(person("before-the-bomb") + b"\n"))
        out.write(squeeze.flush(zlib.Z_FULL_FLUSH))
        # After a full flush the same bytes are squeezed to the same bytes. What ends the file is never read.
        again = squeeze.compress(b"\0" * (16 * MIB)) + squeeze.flush(zlib.Z_FULL_FLUSH)
        out.write(again * 128)
        out.write(squeeze.flush())
    assert path.stat().st_size < 3 * MIB
    before = size(home.folder)
    told = ingest(home, path)
    assert told["stored"] == 1
    assert told["quarantined"] >= 1
    assert "ingest.bomb" in {one["code"] for one in refusals(home, path)}
    assert size(home.folder) - before < 600 * MIB


def test_a_bomb_of_bombs_and_one_document_of_zeros(home: Any, drop: Path) -> None:
    inner = gzip.compress(b" " * (64 * MIB), 9)
    (drop / "nested.json.gz").write_bytes(gzip.compress(inner * 20, 9))
    (drop / "zeros.json.gz").write_bytes(gzip.compress(b"\0" * (48 * MIB), 9))
    told = ingest(home, drop)
    assert told["stored"] == 0
    assert told["quarantined"] == 2


def test_a_line_of_200_mb_is_refused_and_its_neighbours_are_kept(home: Any, drop: Path) -> None:
    path = drop / "long.ndjson"
    block = b"x" * MIB
    with path.open("wb") as out:
        out.write(person("short-1") + b'\n{"resourceType":"Patient","id":"long","text":{"div":"')
        for _ in range(200):
            out.write(block)
        out.write(b'"}}\n' + person("short-2") + b"\n")
    told = ingest(home, path)
    assert (told["stored"], told["quarantined"]) == (2, 1)
    [one] = refusals(home, path)
    assert one["line"] == 2
    assert "max_line_bytes" in one["message"]
    assert stored(home, "short-1", "short-2")


def test_a_document_of_300_mb_without_an_end(home: Any, drop: Path) -> None:
    path = drop / "endless.json"
    with path.open("wb") as out:
        out.write(b'{"resourceType":"Bundle","type":"collection","entry":[{"resource":' + person("first") + b"},")
        out.write(b'{"resource":{"resourceType":"Patient","id":"endless","text":{"div":"')
        for _ in range(300):
            out.write(b"x" * MIB)
    told = ingest(home, path)
    assert (told["stored"], told["quarantined"]) == (1, 1)
    assert stored(home, "first")


def bundle(*resources: bytes, kind: str = "transaction", urls: bool = True) -> bytes:
    entries = [
        b'{"fullUrl":"urn:uuid:%d","resource":%s}' % (n, one) if urls else b'{"resource":%s}' % one
        for n, one in enumerate(resources)
    ]
    head = b'{"resourceType":"Bundle","type":"%s","entry":[' % kind.encode()
    return head + b",".join(entries) + b"]}"


def test_duplicate_ids_in_one_bundle(home: Any, drop: Path) -> None:
    path = drop / "twins.json"
    path.write_bytes(bundle(person("twin", gender="male"), person("only"), person("twin", gender="female")))
    told = ingest(home, path)
    assert told["read"] == 3
    assert told["stored"] == 2
    [one] = refusals(home, path)
    assert one["code"] == "ingest.duplicate_in_bundle"
    [kept] = home.json("search", "Patient?_id=twin")["entry"]
    assert kept["resource"]["gender"] == "male"


def test_a_bundle_with_bad_entries_keeps_the_good_ones(home: Any, drop: Path) -> None:
    path = drop / "mixed.json"
    path.write_bytes(bundle(person("b-1"), b'{"resourceType":"Starship"}', b"7", b"null", person("b-2"), DEEP))
    told = ingest(home, path)
    assert (told["stored"], told["quarantined"]) == (2, 4)
    assert stored(home, "b-1", "b-2")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.json", b""),
        ("empty.ndjson", b""),
        ("blank.ndjson", b"\n\n \n\r\n"),
        ("empty.ndjson.gz", gzip.compress(b"", mtime=0)),
        ("bom.json", b"\xef\xbb\xbf"),
        ("nothing.json", b"{}"),
        ("half.json.gz", b"\x1f"),
        ("head.json.gz", b"\x1f\x8b\x08\x00"),
        ("type-list.json", b'{"resourceType":["Bundle"],"entry":{}}'),
        ("entry-object.json", b'{"resourceType":"Bundle","type":"collection","entry":{"resource":{}}}'),
        ("entry-null.json", b'{"resourceType":"Bundle","type":"collection","entry":null}'),
        ("type-none.json", b'{"resourceType":"Bundle","entry":[]}'),
        ("utf16.json", '{"resourceType":"Patient","id":"x"}'.encode("utf-16")),
        ("xml.json", b"<Patient xmlns='http://hl7.org/fhir'/>"),
        ("zip.json", b"PK\x03\x04" + bytes(100)),
        ("picture.json", b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
        ("parquet.json", b"PAR1" + bytes(64) + b"PAR1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_fhir_ends_in_quarantine_or_in_nothing(home: Any, drop: Path, name: str, content: bytes) -> None:
    path = drop / name
    path.write_bytes(content)
    told = ingest(home, path)
    assert told["stored"] == 0
    if content.strip():
        assert told["sources"] == 1
    if name in ("empty.json", "empty.ndjson", "blank.ndjson", "empty.ndjson.gz", "type-none.json"):
        return
    assert told["quarantined"] >= 1, told
    assert refusals(home, path)[0]["line"] >= 1


# -- paths -----------------------------------------------------------------------------------------------------------


def test_a_missing_path_is_an_error_and_nothing_is_read(home: Any, drop: Path) -> None:
    (drop / "good.ndjson").write_bytes(person("unread"))
    done = home.run("ingest", drop / "good.ndjson", drop / "Zebrowski-missing.ndjson", "--json", expect=2)
    assert done.out == ""
    assert done.error["code"] == "ingest.no_such_path"
    assert "Zebrowski" not in done.err
    assert not stored(home, "unread")


@pytest.mark.parametrize("name", ["fifo", "loop", "dangling", "socket", "long"])
def test_what_is_no_file_is_an_error(home: Any, drop: Path, name: str) -> None:
    """A FIFO must not be waited for, and a loop of links not followed for ever."""
    path = drop / name
    make: dict[str, Callable[[], Any]] = {
        "fifo": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to(path),
        "dangling": lambda: path.symlink_to(drop / "nowhere"),
        "socket": lambda: listen(path),
        "long": lambda: None,
    }
    held = make[name]()
    given = drop / ("n" * 5000) if name == "long" else path
    done = home.run("ingest", given, "--json", expect=2, timeout=30)
    assert done.error["code"] in ("ingest.no_such_path", "ingest.not_a_file")
    if held is not None:
        held.close()


def listen(path: Path) -> Any:
    import socket

    made = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have 108 bytes only
    try:
        made.bind(path.name)
    finally:
        os.chdir(here)
    return made


def test_a_folder_is_walked_and_what_is_no_file_in_it_is_passed_over(home: Any, drop: Path) -> None:
    (drop / "deep" / "deeper").mkdir(parents=True)
    (drop / "deep" / "deeper" / "a.ndjson").write_bytes(person("walked-1"))
    (drop / "b.JSON").write_bytes(person("walked-2"))
    (drop / "notes.txt").write_text("not for us")
    os.mkfifo(drop / "pipe.ndjson")
    (drop / "up").symlink_to(drop)
    (drop / "deep" / "self.ndjson").symlink_to(drop / "deep" / "self.ndjson")
    (drop / "outside.ndjson").symlink_to("/etc/passwd")
    (drop / "folder.json").mkdir()
    told = ingest(home, drop)
    assert told["stored"] == 2
    assert told["quarantined"] == 0
    assert told["skipped"] == 4
    assert stored(home, "walked-1", "walked-2")


def test_names_of_files_are_only_names(home: Any, drop: Path) -> None:
    names = [
        b"..json",
        b"a\nb.ndjson",
        b"-w.ndjson",
        b"$(touch pwned).ndjson",
        b"'; DROP TABLE landing; --.ndjson",
        "имя-患者-🏥.ndjson".encode(),
        b"\xff\xfe-not-utf8.ndjson",
        b"n" * 240 + b".ndjson",
        b" .ndjson",
        b"\x1b[31mred.ndjson",
        b"%2e%2e%2fetc.ndjson",
    ]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(drop), name), "wb") as out:
            out.write(person(f"named-{number}") + b"\nbroken\n")
    told = ingest(home, drop)
    assert told["stored"] == len(names)
    assert told["quarantined"] == len(names)
    assert len(told["landings"]) == len(names)
    found = [one for one in home.json("quarantine", "list") if one["source"].startswith(str(drop))]
    assert {one["line"] for one in found} == {2}
    assert len({one["source"] for one in found}) == len(names)
    assert not list(home.folder.rglob("pwned"))
    home.run("quarantine", "list", expect=0)
    home.run("status", expect=0)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(home: Any, drop: Path) -> None:
    paths = [drop / "a.ndjson", drop / "b.ndjson", drop / "c.ndjson"]
    for number, path in enumerate(paths):
        path.write_bytes(person(f"readable-{number}"))
    paths[1].chmod(0)
    if os.geteuid() == 0:
        paths[1] = Path("/proc/self/mem")  # root reads whatever the mode says, but not this
    told = ingest(home, *paths)
    assert (told["stored"], told["quarantined"]) == (2, 1)
    assert refusals(home, paths[1])[0]["code"] == "ingest.unreadable"
    assert stored(home, "readable-0", "readable-2")


def test_random_bytes_never_break_it(home: Any, drop: Path) -> None:
    """Good lines with bytes of them changed, cut out and put in: every line is accounted for."""
    rng = random.Random(17)
    good = person("fuzzed", name=[{"family": "Ünïcode", "given": ["A", "B"]}], birthDate="1970-01-01", active=True)
    rows = []
    for _ in range(4000):
        row = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(row))
            row[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        rows.append(bytes(row).replace(b"\n", b" ").replace(b"\r", b" "))
    path = drop / "fuzz.ndjson"
    path.write_bytes(b"\n".join(rows) + b"\n")
    told = ingest(home, path)
    assert told["read"] == sum(1 for row in rows if row.strip())
    assert told["quarantined"] > 1000
    assert "ingest.unforeseen" not in {one["code"] for one in refusals(home, path)}


def test_after_all_this_the_trail_is_whole(home: Any) -> None:
    told = home.json("audit", "verify")
    assert told["intact"] is True
    assert told["unfinished"] == 0


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
