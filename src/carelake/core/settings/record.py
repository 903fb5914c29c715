"""What comes in and is searched: bounds of import, validation, search and bulk."""

from __future__ import annotations

from typing import Literal

import msgspec

from carelake.core.settings.units import MIB

__all__ = ["BulkSettings", "IngestSettings", "SearchSettings", "ValidationSettings"]


class IngestSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what is read; each one's breach is a quarantine or an error that names the setting.

    Attributes:
        page: entries that are committed together; other writers wait for a page, and each page costs a commit.
    """

    workers: int = 1
    page: int = 10_000
    max_line_bytes: int = 64 * MIB
    max_document_bytes: int = 256 * MIB
    max_ratio: int = 250
    max_depth: int = 100
    validation: Literal["strict", "structure", "minimal"] = "structure"


class ValidationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a resource before it is kept (docs/validation.md); for import see `IngestSettings.validation`.

    Attributes:
        write: the level for what is written over HTTP.
        references: with ``on``, what a write refers to on this server must be there.
    """

    write: Literal["strict", "structure", "minimal"] = "strict"
    references: Literal["off", "on"] = "off"


class SearchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is indexed for searches, and their bounds.

    Attributes:
        content: index the words of all texts, for ``_content``; `carelake reindex` builds them.
        included: how many resources ``_include`` and ``_revinclude`` may bring to one page; the rest is left out,
            and the answer says so.
        seconds: how long the database may take for one search.
    """

    content: bool = False
    included: int = 2000
    seconds: float = 30.0


class BulkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bulk export and import (docs/bulk.md).

    Attributes:
        part_resources: resources in a file of an export; a job goes on with the file at which it was killed.
        keep_seconds: how long files of an export stay after it is done.
        most_jobs: of one principal that are not at their end.
        import_folder: folder whose files may be imported over HTTP; "" for none.
    """

    part_resources: int = 50_000
    keep_seconds: float = 86_400.0
    most_jobs: int = 4
    poll_seconds: float = 2.0
    import_folder: str = ""
