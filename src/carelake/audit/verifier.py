"""Verify an export of a carelake trail without carelake: Python 3.11 and the package `cryptography` are all it needs.

    python verify.py DIR [--key PEM]... [--head FILE]...

DIR is what `carelake audit export --format jsonl` wrote. What lies in DIR proves that the acts were not changed since
they were signed by the keys in DIR; give the public keys (--key) and the newest head (--head) that you got from
elsewhere to know whose keys those are and that the end is not missing. Exit code 0: intact; 1: not, and the first bad
thing is named. How the trail is made: docs/internals/audit.md of carelake.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class BadError(Exception):
    """The first thing that does not verify."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


class Tree:
    """A Merkle tree that grows (RFC 6962 section 2.1), as the roots of its full subtrees."""

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        self.peaks: list[tuple[int, bytes]] = []
        for leaf in leaves:
            self.add(leaf)

    def add(self, leaf: bytes) -> None:
        size, digest = 1, sha256(b"\x00" + leaf)
        while self.peaks and self.peaks[-1][0] == size:
            size, digest = size * 2, sha256(b"\x01" + self.peaks.pop()[1] + digest)
        self.peaks.append((size, digest))

    def root(self) -> str:
        found = self.peaks[-1][1] if self.peaks else sha256(b"")
        for _, digest in reversed(self.peaks[:-1]):
            found = sha256(b"\x01" + digest + found)
        return found.hex()


def climb(leaf: bytes, index: int, size: int, proof: Sequence[str]) -> str:
    """The root that an inclusion proof leads to (RFC 6962 section 2.1.1); "" for what is no proof."""
    at, last, found, steps = index, size - 1, sha256(b"\x00" + leaf), [bytes.fromhex(one) for one in proof]
    while last > 0:
        if at % 2 or at < last:
            if not steps:
                return ""
            step = steps.pop(0)
            found = sha256(b"\x01" + step + found) if at % 2 else sha256(b"\x01" + found + step)
        at, last = at // 2, last // 2
    return found.hex() if not steps and 0 <= index < size else ""


def public_key(path: Path) -> tuple[Any, bytes]:
    key = serialization.load_pem_public_key(path.read_bytes())
    return key, key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class Export:
    """An export, and the keys that are trusted: by default those that lie in it."""

    def __init__(self, folder: Path, trusted: Sequence[Path] = ()) -> None:
        self.folder, known = folder, {public_key(path)[1] for path in trusted}
        found = {int(path.stem[7:]): public_key(path) for path in folder.glob("keys/trail-v*.pem")}
        self.keys = {number: key for number, (key, data) in found.items() if not trusted or data in known}
        self.manifest = json.loads((folder / "manifest.json").read_bytes())
        self.patients = lines(folder / "patients.jsonl")
        self.headers: list[dict[str, Any]] = []

    def signed(self, name: str, data: bytes, signature: str, version: int) -> None:
        if version not in self.keys:
            raise BadError(f"{name}: signed by version {version} of the key, which is not there or not trusted")
        try:
            self.keys[version].verify(bytes.fromhex(signature), data, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            raise BadError(f"{name}: its signature is wrong") from None

    def segments(self, *, whole: bool) -> None:
        """The chain of headers, each with its acts where they are there."""
        stream, tree, previous, last, at = lines(self.folder / "trail.jsonl"), Tree(), "0" * 64, 0, ""
        for line in stream:
            header, name = json.loads(line), f"segment {len(self.headers) + 1}"
            told = (header.get("number"), header["previous"], header["first"], header["workspace"])
            if told != (len(self.headers) + 1, previous, last + 1, self.manifest["workspace"]):
                raise BadError(f"{name}: what stands here does not continue the segment before it")
            if header["at"] < at or header["last"] != last + header["acts"]:
                raise BadError(f"{name}: it goes back in time, or miscounts its acts")
            acts = [next(stream, b"") for _ in range(header["acts"])] if whole else []
            signature = json.loads(next(stream, b"{}")).get("signature", "")
            self.signed(name, line, signature, header.get("key", 1))
            if header.get("tree", tree.root()) != tree.root():
                raise BadError(f"{name}: its tree is not that of the segments before it")
            if whole and Tree(acts).root() != header["root"]:
                raise BadError(f"{name}: its acts do not give its Merkle root")
            for seq, act in enumerate(acts, last + 1):
                self.act(json.loads(act), seq)
            tree.add(line)
            previous, last, at = hashlib.sha256(line).hexdigest(), header["last"], header["at"]
            self.headers.append({**header, "digest": previous})

    def act(self, act: dict[str, Any], seq: int) -> None:
        """An act in its place, with the list of patients that it only counts and digests."""
        if act["seq"] != seq:
            raise BadError(f"act {seq}: another act stands in its place")
        if "patients_digest" in act:
            told = json.loads(next(self.patients, b"{}"))
            people = told.get("patients", [])
            right = told.get("seq") == seq and len(people) == act["patients_count"]
            if not right or sha256(canonical(people)).hex() != act["patients_digest"]:
                raise BadError(f"act {seq}: its list of patients is not the one that was sealed")

    def chosen(self) -> int:
        """Acts that were chosen, each with the proof that it is in its segment; answers how many."""
        count, before = 0, 0
        for line in lines(self.folder / "acts.jsonl"):
            told = json.loads(line)
            text, header = told["act"].encode(), self.headers[told["segment"] - 1]
            seq = header["first"] + told["index"]
            if climb(text, told["index"], header["acts"], told["proof"]) != header["root"]:
                raise BadError(f"act {seq}: its proof does not lead to its segment")
            if seq <= before:
                raise BadError(f"act {seq}: it stands twice, or out of order")
            self.act(json.loads(text), seq)
            count, before = count + 1, seq
        return count

    def head(self, name: str, data: bytes) -> None:
        """A signed head names a segment that is there."""
        head = json.loads(data)
        self.signed(name, canonical({k: v for k, v in head.items() if k != "signature"}), head["signature"],
                    head.get("key", 1))  # fmt: skip
        if head["workspace"] != self.manifest["workspace"]:
            raise BadError(f"{name}: it is of another workspace")
        if head["number"] > len(self.headers):
            raise BadError(f"{name}: it names segment {head['number']}, which is not there: the tail was cut off")
        if self.headers[head["number"] - 1]["digest"] != head["digest"]:
            raise BadError(f"segment {head['number']}: it is not the one that {name} names")


def verify(folder: Path, trusted: Sequence[Path] = (), heads: Sequence[Path] = ()) -> str:
    """What was found intact, in a sentence; raises `BadError` for the first thing that is not."""
    export = Export(folder, trusted)
    whole = export.manifest["mode"] == "whole"
    export.segments(whole=whole)
    acts = sum(header["acts"] for header in export.headers) if whole else export.chosen()
    if next(export.patients, None) is not None:
        raise BadError("patients.jsonl: it holds lists of acts that are not there")
    for path in [folder / "head.json", *heads]:
        export.head(path.name, path.read_bytes())
    for line in lines(folder / "anchors.jsonl"):
        export.head("a head of anchors.jsonl", line)
    if (export.manifest["segments"], export.manifest["acts"]) != (len(export.headers), acts):
        raise BadError("manifest.json: it counts other segments or acts than are there")
    return f"intact: {acts} acts, {len(export.headers)} segments of workspace {export.manifest['workspace']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", type=Path, action="append", default=[], help="a public key that you trust, PEM")
    parser.add_argument("--head", type=Path, action="append", default=[], help="a signed head from elsewhere")
    told = parser.parse_args()
    try:
        sys.stdout.write(verify(told.folder, told.key, told.head) + "\n")
        return 0
    except BadError as error:
        sys.stdout.write(f"NOT INTACT: {error}\n")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        sys.stdout.write(f"NOT INTACT: the export cannot be read as one ({type(error).__name__})\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
