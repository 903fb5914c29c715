"""What may be wrong with a view: each error names the place inside the ViewDefinition, never a value of the data."""

from __future__ import annotations

from carelake.core.errors import CarelakeError, Invalid, Unsupported

__all__ = [
    "cardinality_error",
    "definition_error",
    "depth_error",
    "evaluation_error",
    "path_error",
    "sql_error",
    "type_error",
]


def definition_error(at: str, message: str) -> Invalid:
    """The ViewDefinition is not one."""
    return Invalid("lake.view_definition", f"The ViewDefinition is wrong at {at or 'its top'}: {message}", path=at)


def path_error(at: str, message: str, position: int = 0) -> Invalid:
    """A FHIRPath expression of the view is wrong."""
    return Invalid(
        "lake.view_path",
        f"The FHIRPath at {at} of the ViewDefinition is wrong: {message}",
        path=at,
        position=position,
    )


def evaluation_error(at: str, error: CarelakeError) -> Invalid:
    """What the FHIRPath reader or evaluator says, with the place in the view."""
    position = error.facts.get("position")
    return path_error(at, error.message, position if isinstance(position, int) else 0)


def type_error(at: str, message: str) -> Invalid:
    """A value has another type than the view may have there."""
    return Invalid("lake.view_type", f"Wrong type at {at} of the ViewDefinition: {message}", path=at)


def cardinality_error(at: str) -> Invalid:
    """Several values where one is expected."""
    return Invalid(
        "lake.view_cardinality",
        f"The path at {at} of the ViewDefinition gave several values; expected one. "
        "Set collection: true, or choose one with first() or where().",
        path=at,
    )


def depth_error(at: str, levels: int) -> Invalid:
    """A `repeat` that goes deeper than any data should."""
    return Invalid(
        "lake.view_depth",
        f"The {at} of the ViewDefinition went more than {levels} levels deep; expected data that ends.",
        path=at,
    )


def sql_error(at: str, what: str) -> Unsupported:
    """FHIRPath that is right and has no form in SQL here."""
    return Unsupported(
        "lake.view_sql",
        f"{what} at {at} of the ViewDefinition has no SQL form here. Use engine='oracle', or write it without.",
        path=at,
    )
