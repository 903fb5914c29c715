"""UCUM: the table is whole, and conversions are those of its definitions."""

from __future__ import annotations

from fractions import Fraction

import pytest

from carelake.fhir.path.ucum import divide, multiply, unit
from carelake.fhir.path.ucum_table import ARBITRARY, BASES, PREFIXES, SPECIAL, UNITS

EQUAL = [
    ("[lb_av]", "453.59237", "g"),
    ("[in_i]", "25.4", "mm"),
    ("[gal_us]", "3.785411784", "L"),
    ("[foz_us]", "29.5735295625", "mL"),
    ("mm[Hg]", "133.322", "Pa"),
    ("cm[H2O]", "98.0665", "Pa"),
    ("[psi]", "6.894757293168361336722673445346890693781387562775", "kPa"),
    ("kcal", "4184", "J"),
    ("mg/dL", "0.01", "g/L"),
    ("10*9/L", "1", "10*3/uL"),
    ("10*6/uL", "1", "10*12/L"),
    ("meq/L", "1", "mmol/L"),
    ("kat", "60000000", "U"),
    ("wk", "168", "h"),
    ("a", "365.25", "d"),
    ("mo", "30.4375", "d"),
    ("%", "10", "[ppth]"),
    ("kg/m2", "0.1", "g/cm2"),
    ("mL/min/{1.73_m2}", "0.06", "L/h"),
    ("ug/kg/min", "60", "ug/kg/h"),
    ("N.m", "1", "J"),
    ("(mg/L)/s", "60", "mg/L/min"),
    ("/min", "60", "/h"),
    ("mosm/kg", "1", "mmol/kg"),
    ("[oz_av]", "28.349523125", "g"),
    ("[mi_i]", "1.609344", "km"),
    ("[ft_us]", "12", "[in_us]"),
    ("dag", "10", "g"),
    ("KiBy", "8192", "bit"),
    ("deg", "60", "'"),
    ("g%", "10", "g/L"),
    ("[drp]", "0.05", "mL"),
    ("cm-1", "100", "m-1"),
]


def test_every_unit_of_the_table_is_read() -> None:
    for code in (*UNITS, *BASES, *ARBITRARY, *SPECIAL):
        assert unit(code) is not None, code
    assert len(UNITS) > 180
    assert len(PREFIXES) == 24


@pytest.mark.parametrize(("left", "factor", "right"), EQUAL)
def test_conversion(left: str, factor: str, right: str) -> None:
    one, other = unit(left), unit(right)
    assert one is not None
    assert other is not None
    assert one.dimension == other.dimension
    assert abs(one.factor / other.factor / Fraction(factor) - 1) < Fraction(1, 10**12)


@pytest.mark.parametrize(
    "code", ["", "foo", "m//s", "(m", "m)", "m{", "k", "mmm", "kwk", "m99999", "ä", "m s", "1.", "Cel2"]
)
def test_what_is_not_ucum(code: str) -> None:
    assert unit(code) is None


def test_products_are_written_as_ucum() -> None:
    assert multiply("m", "m") == "m2"
    assert divide("m", "m") == "1"
    assert divide("mg", "dL") == "mg/dL"
    assert multiply("m/s", "s") == "m"
    assert divide("1", "s") == "/s"
    assert multiply("Cel", "m") is None
