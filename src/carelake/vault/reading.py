"""Opening a version for reading, whatever form it is held in."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row, select

from carelake.core.errors import Corrupt, Unsupported
from carelake.vault.blobs import Blob, InlineSource, Source
from carelake.vault.chunks import ChunkReader, Place
from carelake.vault.depot import Depot
from carelake.vault.keyring import Key
from carelake.vault.parts import PartsReader, Piece, read_manifest
from carelake.vault.tables import object_inline, object_part

__all__ = ["Reader", "open_piece", "open_version", "readall", "sealed_version"]

Reader = ChunkReader | PartsReader
_P = object_part.c


def open_version(depot: Depot, row: Row[Any], sealed: bytes | None = None) -> Reader:
    """A seekable stream of a version's plaintext.

    Args:
        row: of ``object_version``.
        sealed: its inline bytes, where they came with the row.

    Raises:
        Corrupt: ``vault.missing``, ``vault.altered``; here or at a read.
    """
    place = Place(depot.workspace, row.account, row.zone, row.object, row.version)
    if row.form == "parts":
        pieces = read_manifest(depot, place)
        reader: Reader = PartsReader(pieces, lambda index: open_piece(depot, place, pieces, index))
    else:
        blob = Blob(row.account, row.zone, row.object, row.storage)
        reader = ChunkReader(_source(depot, blob, row.form, sealed), place, _keys(depot, place))
    if reader.size != row.size:
        reader.close()
        raise Corrupt("vault.altered", "A stored object has another length than was entered for it.")
    return reader


def sealed_version(depot: Depot, row: Row[Any], sealed: bytes | None = None) -> tuple[bytes, Place]:
    """A version's bytes as they lie, still sealed, and the place that they are bound to; args as `open_version`.

    Raises:
        Corrupt: ``vault.missing``. Unsupported: ``vault.release_parts``.
    """
    if row.form == "parts":
        raise Unsupported(
            "vault.release_parts", "An object that was uploaded in parts is not released; put it whole."
        )
    source = _source(depot, Blob(row.account, row.zone, row.object, row.storage), row.form, sealed)
    try:
        found = bytearray(source.size)
        read = source.read_at(0, memoryview(found))
    finally:
        source.close()
    return bytes(found[:read]), Place(depot.workspace, row.account, row.zone, row.object, row.version)


def open_piece(depot: Depot, place: Place, pieces: Sequence[Piece], index: int) -> ChunkReader:
    """One part of a composed version."""
    piece = pieces[index]
    bound = Place(place.workspace, place.account, place.zone, piece.object, piece.bound)
    reader, was = None, ""
    while reader is None:
        form, storage = _where(depot, piece)
        blob = Blob(place.account, place.zone, piece.object, storage)
        try:
            reader = ChunkReader(_source(depot, blob, form, None), bound, _keys(depot, place))
        except Corrupt as error:
            # It may have moved to another storage class after its row was read.
            if error.code != "vault.missing" or storage == was:
                raise
            was = storage
    if reader.size != piece.size:
        reader.close()
        raise Corrupt("vault.altered", "A part of an object has another length than was entered for it.")
    return reader


def _where(depot: Depot, piece: Piece) -> tuple[str, str]:
    """Where it lies is told by its row, and may change; what it is, by the sealed list."""
    with depot.database.snapshot() as connection:
        row = connection.execute(select(_P.form, _P.storage).where(_P.object == piece.object).limit(1)).first()
    if row is None:
        raise Corrupt("vault.missing", "A part of an object is missing; restore it from a backup.")
    return row.form, row.storage


def _source(depot: Depot, blob: Blob, form: str, sealed: bytes | None) -> Source:
    if form == "file":
        return depot.blobs.open(blob)
    if sealed is None:
        with depot.database.snapshot() as connection:
            query = select(object_inline.c.sealed).where(object_inline.c.object == blob.object)
            sealed = connection.scalar(query)
    if sealed is None:
        raise Corrupt("vault.missing", "The bytes of an object are missing; restore the database from a backup.")
    return InlineSource(sealed)


def _keys(depot: Depot, place: Place) -> Callable[[int], Key]:
    return lambda number: depot.key(place.account, place.zone, number)


def readall(reader: Reader) -> bytes:
    """What is left of a stream, without a copy at the end."""
    return reader.readall() if isinstance(reader, ChunkReader) else io.BufferedReader(reader).read()
