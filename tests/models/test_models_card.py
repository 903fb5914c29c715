"""The card says what it must, needs nothing but itself, and escapes what comes from data."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from carelake.models import card, evaluate, plots, train
from carelake.models.scorer import Scorer

ABOUT = card.About("trainingset:" + "0" * 64, "pipeline", [("stays of <adults>", 12_000), ("followed", 11_000)])


@pytest.fixture(scope="module")
def content(scorer: Scorer, metrics: evaluate.Metrics, plan: train.Plan) -> dict:
    return card.card(scorer, metrics, plan, ABOUT)


@pytest.fixture(scope="module")
def page(content: dict, scorer: Scorer) -> str:
    return card.html(content, scorer.description.words)


def test_it_says_that_synthetic_figures_prove_plumbing_only(content: dict, page: str) -> None:
    assert "prove that the plumbing works" in card.SYNTHETIC
    assert card.SYNTHETIC in content["additional_information"]["caveats_and_recommendations"]
    assert card.SYNTHETIC in page


def test_it_holds_the_sections_of_the_schema_and_every_figure(content: dict, page: str) -> None:
    sections = "model_overview intended_uses training_details evaluation_details additional_information"
    assert set(sections.split()) <= set(content)
    metrics = content["metrics"]
    for name in ("auroc", "brier"):
        assert f"{metrics[name]:.{4 if name == 'brier' else 3}f}" in page
    for heading in ("Intended use", "Beside its baselines", "Subgroups", "Limits", "How to reproduce"):
        assert f"<h2>{heading}</h2>" in page
    assert ABOUT.training_set in page


def test_it_loads_nothing_and_runs_nothing(page: str) -> None:
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert not re.search(r"\b(src|href)=", page)
    assert "default-src 'none'" in page


def test_what_comes_from_data_is_escaped(page: str) -> None:
    assert "stays of &lt;adults&gt;" in page
    assert "Stays &lt;before&gt;" in page
    assert "<before>" not in page


def test_plots_are_sound_xml_inside_their_frame(metrics: evaluate.Metrics) -> None:
    hostile = [{**s, "value": '<b>&"'} for s in metrics["subgroups"]]
    drawn = [
        plots.calibration(metrics["curve"]),
        plots.roc(metrics["roc"]),
        plots.decision(metrics["net_benefit"]),
        plots.forest(hostile, metrics["auroc"]),
        plots.bars([("<x>", 1.0), ("y", 0.0)]),
    ]
    for svg in drawn:
        tree = ET.fromstring(str(svg))
        _, _, wide, high = map(float, tree.attrib["viewBox"].split())
        for dot in tree.iter("circle"):
            assert 0 <= float(dot.attrib["cx"]) <= wide
            assert 0 <= float(dot.attrib["cy"]) <= high


def test_plots_of_nothing_do_not_fail() -> None:
    for svg in (plots.calibration([]), plots.roc({}), plots.decision([]), plots.forest([], 0.7), plots.bars([])):
        ET.fromstring(str(svg))
