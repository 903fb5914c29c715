"""The record: versioned FHIR resources with search, history and a change feed."""

from carelake.store.feed import Change
from carelake.store.keep import Kept
from carelake.store.reindex import ReindexReport
from carelake.store.resources import Resources
from carelake.store.search import SearchResult
from carelake.store.write import Written

__all__ = ["Change", "Kept", "ReindexReport", "Resources", "SearchResult", "Written"]
