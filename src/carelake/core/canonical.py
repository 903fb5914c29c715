"""JSON in and out with every digit kept (decision D7), and its canonical form.

Canonical: UTF-8, keys sorted by code point, no white space, numbers written as they came. FHIR decimals carry
precision (1.10 is not 1.1), so decimals are parsed to `decimal.Decimal`; a number whose text `Decimal` would write
in another way (``1e2``, ``0.0000001``) becomes a `Lexeme`, which remembers it. One text is not kept: the integer
``-0`` comes back as ``0``, since the parser has no hook for integers.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from carelake.core.errors import Invalid

__all__ = ["Lexeme", "digest", "dump", "dump_as_given", "dump_pretty", "load"]


class Lexeme(Decimal):
    """A decimal that is written back with the text it was read from."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Lexeme:
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __reduce__(self) -> tuple[type[Lexeme], tuple[str]]:
        return (Lexeme, (self.text,))


def _number(text: str) -> Decimal:
    value = Decimal(text)
    return value if str(value) == text else Lexeme(text)


def _encode_other(value: object) -> object:
    if isinstance(value, Lexeme):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"{type(value).__name__} has no JSON form here")


_decoder = msgspec.json.Decoder(float_hook=_number)
_encoder = msgspec.json.Encoder(decimal_format="number", order="sorted", enc_hook=_encode_other)
_encoder_as_given = msgspec.json.Encoder(decimal_format="number", enc_hook=_encode_other)


def load(data: bytes | str) -> Any:
    """Parse JSON with exact decimals.

    Raises:
        Invalid: ``core.json`` (not JSON), ``core.utf8`` (not UTF-8), ``core.depth`` (nested too deeply). The
            message holds the byte position, never the text.
    """
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise Invalid("core.utf8", "The text is not valid UTF-8; expected UTF-8 JSON.", at=error.start) from None
    except RecursionError:
        raise Invalid("core.depth", "The JSON is nested too deeply to be a clinical document.") from None
    except InvalidOperation:
        raise Invalid("core.json", "The text holds a number whose exponent is beyond any use.") from None
    except msgspec.DecodeError as error:
        raise Invalid("core.json", f"The text is not valid JSON: {_position_only(str(error))}.") from None


def _position_only(message: str) -> str:
    # msgspec's messages name a position and a reason, and no content but for one quoted form; drop what is quoted.
    return message.split("`")[0].strip().removeprefix("JSON is malformed: ").rstrip(".")


def dump(value: object) -> bytes:
    """The canonical bytes of a JSON value."""
    return _encoder.encode(value)


def dump_as_given(value: object) -> bytes:
    """JSON without white space, keys in the order given; `msgspec.Raw` parts are copied as they are."""
    return _encoder_as_given.encode(value)


def dump_pretty(value: object) -> str:
    """Indented JSON for people, keys in the order given."""
    return msgspec.json.format(_encoder_as_given.encode(value), indent=2).decode()


def digest(value: object) -> str:
    """SHA-256 of the canonical bytes, in hex."""
    return hashlib.sha256(dump(value)).hexdigest()
