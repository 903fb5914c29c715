"""LACE and HOSPITAL: the two published readmission scores, as pure functions of their items.

LACE (van Walraven et al., CMAJ 2010; 0-19, high from 10): length of stay, acute admission, comorbidity with its own
Charlson weights, emergency visits in the six months before. HOSPITAL (Donze et al., JAMA Intern Med 2013 and 2016;
0-13): haemoglobin and sodium at discharge, oncology service, procedure, urgent index admission, admissions in the
year before, length of stay. Two cut-offs for the admissions item are published: ``HOSPITAL_2016`` (the international
validation: 0-1, 2-5, >5) and ``HOSPITAL_2013`` (the derivation: 0, 1-5, >5).

An item that was not recorded earns no points, as the scores are used at the bedside; LACE's length of stay counts
whole days, and a stay of less than one day none.
"""

from __future__ import annotations

import math

__all__ = ["HOSPITAL_2013", "HOSPITAL_2016", "hospital", "lace", "lace_length_points"]

HOSPITAL_2016 = (2, 6)
"""Admissions in the previous 12 months that first earn 2 and 5 points (international validation, 2016)."""
HOSPITAL_2013 = (1, 6)
"""The same of the derivation, 2013."""


def lace_length_points(days: float) -> int:
    """Points for the length of stay: <1 day 0, 1-3 days 1 each, 4-6 days 4, 7-13 days 5, 14 and more 7."""
    whole = math.floor(days)
    if whole < 4:
        return max(whole, 0)
    return 4 if whole < 7 else 5 if whole < 14 else 7


def lace(*, days: float | None, acute: bool | None, charlson: int | None, ed_visits: int | None) -> int:
    """The LACE index, 0-19.

    Args:
        days: length of stay in days.
        acute: whether the admission was acute or emergent.
        charlson: sum of LACE's Charlson weights; 4 and more count 5 points.
        ed_visits: emergency visits in the six months before admission, the one that led to it not counted.
    """
    comorbidity = charlson or 0
    return (
        lace_length_points(days or 0.0)
        + (3 if acute else 0)
        + (comorbidity if comorbidity < 4 else 5)
        + min(ed_visits or 0, 4)
    )


def hospital(
    *,
    hemoglobin: float | None,
    oncology: bool | None,
    sodium: float | None,
    procedure: bool | None,
    urgent: bool | None,
    admissions: int | None,
    days: float | None,
    cutoffs: tuple[int, int] = HOSPITAL_2016,
) -> int:
    """The HOSPITAL score, 0-13.

    Args:
        hemoglobin: last before discharge, g/dL; below 12 counts.
        oncology: discharged from an oncology service.
        sodium: last before discharge, mmol/L; below 135 counts.
        procedure: any coded procedure in the stay.
        urgent: whether the index admission was urgent or emergent.
        admissions: hospital admissions in the 12 months before.
        days: length of stay; 5 and more count.
        cutoffs: `HOSPITAL_2016` or `HOSPITAL_2013`.
    """
    some, many = cutoffs
    before = admissions or 0
    return (
        (1 if hemoglobin is not None and hemoglobin < 12 else 0)
        + (2 if oncology else 0)
        + (1 if sodium is not None and sodium < 135 else 0)
        + (1 if procedure else 0)
        + (1 if urgent else 0)
        + (5 if before >= many else 2 if before >= some else 0)
        + (2 if days is not None and days >= 5 else 0)
    )
