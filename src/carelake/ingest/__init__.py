"""Bytes to landing to parsed or quarantined: files and folders of FHIR JSON, plain or gzip, lines or documents."""

from carelake.ingest.quarantine import Quarantine, Quarantined
from carelake.ingest.reader import Page, Part, Reader
from carelake.ingest.sources import Found, Source, expand

__all__ = ["Found", "Page", "Part", "Quarantine", "Quarantined", "Reader", "Source", "expand"]
