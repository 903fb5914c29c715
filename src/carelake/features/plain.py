"""Columns in the form that can be compared and taken from, however Arrow stores them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["plain", "takeable"]


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values themselves: no run ends, dictionaries or names of extensions; texts and bytes in one kind each."""
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    return column


def takeable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column, without what Arrow takes no places from: run ends, and views of texts and bytes at any depth."""
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    wanted = _without_views(column.type)
    return column if wanted == column.type else column.cast(wanted)


def _without_views(kind: pa.DataType) -> pa.DataType:
    """The same type with no view in it."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([_field(kind.field(at)) for at in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(_field(kind.key_field), _field(kind.item_field), kind.keys_sorted)
    if pa.types.is_list(kind):
        return pa.list_(_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_field(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_field(kind.value_field), kind.list_size)
    return kind


def _field(field: pa.Field) -> pa.Field:
    return field.with_type(_without_views(field.type))
