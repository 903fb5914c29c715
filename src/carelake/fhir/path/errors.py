"""What may go wrong with an expression: each error names the place and what to do, never a value."""

from __future__ import annotations

from carelake.core.errors import Invalid, Unavailable

__all__ = [
    "argument_error",
    "limit_error",
    "name_error",
    "regex_error",
    "service_error",
    "singleton_error",
    "syntax_error",
    "type_error",
    "variable_error",
]


def syntax_error(at: int, message: str) -> Invalid:
    """The text is not FHIRPath."""
    return Invalid("fhirpath.syntax", f"The expression cannot be read at character {at}: {message}", position=at)


def name_error(at: int, message: str) -> Invalid:
    """A function, type or element that does not exist."""
    return Invalid(
        "fhirpath.name", f"The expression names what is not there, at character {at}: {message}", position=at
    )


def variable_error(at: int, message: str) -> Invalid:
    """A variable that is not defined, or defined twice."""
    return Invalid("fhirpath.variable", f"Wrong use of a variable at character {at}: {message}", position=at)


def singleton_error(at: int, what: str, count: int) -> Invalid:
    """More than one item where one is expected."""
    message = f"{what} at character {at} got {count} items; expected one. Use first(), where() or select()."
    return Invalid("fhirpath.singleton", message, position=at, items=count)


def type_error(at: int, what: str, got: str, expected: str) -> Invalid:
    """An item of a type that the operation does not take."""
    return Invalid(
        "fhirpath.type",
        f"{what} at character {at} got {got}; expected {expected}. Convert it, or choose items with ofType().",
        position=at,
    )


def argument_error(at: int, message: str) -> Invalid:
    """Arguments in the wrong number, or of a value that the function does not take."""
    return Invalid("fhirpath.argument", f"Wrong argument at character {at}: {message}", position=at)


def limit_error(at: int, message: str) -> Invalid:
    """Too long, too deep, or more results than any use has."""
    return Invalid("fhirpath.limit", f"The expression went over a limit at character {at}: {message}", position=at)


def regex_error(at: int, message: str) -> Invalid:
    """A regular expression that is wrong or takes too long."""
    return Invalid("fhirpath.regex", f"The regular expression at character {at} was stopped: {message}", position=at)


def service_error(at: int, function: str, option: str) -> Unavailable:
    """The function needs a part that the caller did not hand in."""
    return Unavailable(
        "fhirpath.service",
        f"{function} at character {at} needs a service; hand one in as {option}= of the call.",
        position=at,
    )
