"""Search: which parameters a resource type has, the sources of their values, and the index values of a resource.

A `Source` is a place that values come from, and the key of its index rows; a `SearchParameter` says which sources it
uses; a `Registry` has the parameters of every type: the standard's, US Core's and custom ones.
"""

from carelake.fhir.definitions import SearchDefinition
from carelake.fhir.search.custom import definition
from carelake.fhir.search.extractor import extract
from carelake.fhir.search.parameters import Component, SearchParameter
from carelake.fhir.search.registry import BASE, COLUMNS, Registry, parameters, unsupported
from carelake.fhir.search.sources import Source, Use

__all__ = [
    "BASE",
    "COLUMNS",
    "Component",
    "Registry",
    "SearchDefinition",
    "SearchParameter",
    "Source",
    "Use",
    "definition",
    "extract",
    "parameters",
    "unsupported",
]
