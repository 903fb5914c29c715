"""A search's parameters as typed, frozen data (https://hl7.org/fhir/R4/search.html); the store makes SQL of it.

What is not offered is an error that names the parameter, never an unfiltered answer. No message holds a value.
"""

from __future__ import annotations

from carelake.fhir.query.model import Condition, Has, Include, Query, Sort, is_followed, pointed_types
from carelake.fhir.query.reading import parse, parse_text
from carelake.fhir.query.values import (
    CompositeValue,
    DateValue,
    NearValue,
    NumberValue,
    ReferenceValue,
    StringValue,
    TokenValue,
    UriValue,
    Value,
    WordsValue,
)

__all__ = [
    "CompositeValue",
    "Condition",
    "DateValue",
    "Has",
    "Include",
    "NearValue",
    "NumberValue",
    "Query",
    "ReferenceValue",
    "Sort",
    "StringValue",
    "TokenValue",
    "UriValue",
    "Value",
    "WordsValue",
    "is_followed",
    "parse",
    "parse_text",
    "pointed_types",
]
