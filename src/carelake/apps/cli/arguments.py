"""Global options may stand anywhere on the line: ``carelake search Patient --as reviewer`` means what it says."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["GLOBAL_WITH_VALUE", "hoist"]

GLOBAL_WITH_VALUE = frozenset({"-w", "--workspace", "--as", "--purpose", "--account"})


def hoist(arguments: Sequence[str]) -> list[str]:
    """The arguments with global options moved before the command.

    Args:
        arguments: what follows the program's name. Nothing after ``--`` is moved.
    """
    first: list[str] = []
    rest: list[str] = []
    coming = iter(arguments)
    for argument in coming:
        if argument == "--":
            rest += [argument, *coming]
        elif argument in GLOBAL_WITH_VALUE:
            first += [argument, *([value] if (value := next(coming, None)) is not None else [])]
        elif argument.startswith("--") and argument.partition("=")[0] in GLOBAL_WITH_VALUE:
            first.append(argument)
        else:
            rest.append(argument)
    return first + rest
