"""Search: which parameters a resource type has, and the index values of a resource."""

from carelake.fhir.search.extractor import extract
from carelake.fhir.search.registry import SearchParameter, parameters, unsupported

__all__ = ["SearchParameter", "extract", "parameters", "unsupported"]
