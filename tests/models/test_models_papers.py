"""The papers of a version: XML that fits its schema, a checklist that invents nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import msgspec
import pytest
from lxml import etree

from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.models import artifact, chai, tripod
from carelake.models.packages.packages import ModelPackages
from carelake.models.papers import Papers
from carelake.models.registry import Registry

TRAINING_SET = "trainingset:" + "0" * 64
NAMESPACE = "{https://mc.chai.org/v0.2/schema.xsd}"
RELEASE = chai.Release("readmission", 1, "2026-01-02", "Approved", "Production", "model:" + "0" * 64)


@pytest.fixture(scope="module")
def schema() -> etree.XMLSchema:
    text = resources.files("carelake.models").joinpath("chai.xsd").read_bytes()
    return etree.XMLSchema(etree.fromstring(text))


@pytest.fixture(scope="module")
def content(files: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    return msgspec.json.decode(files["card.json"]), msgspec.json.decode(files["metrics.json"])


def parsed(text: bytes) -> etree._Element:
    return etree.fromstring(text, etree.XMLParser(resolve_entities=False, no_network=True))


def test_the_card_as_xml_fits_the_schema_and_has_the_figures(schema, content) -> None:
    card, metrics = content
    tree = parsed(chai.applied_model_card(card, metrics, RELEASE))
    schema.assertValid(tree)
    useful = tree.find(f".//{NAMESPACE}UsefulnessUsabilityEfficacy")
    labels = [one.text for one in useful.iter(f"{NAMESPACE}Label")]
    values = [one.text for one in useful.iter(f"{NAMESPACE}ValueJson")]
    assert msgspec.json.decode(values[labels.index("auroc")]) == metrics["auroc"]
    groups = [one.text for one in tree.find(f".//{NAMESPACE}FairnessEquity").iter(f"{NAMESPACE}Label")]
    assert groups == [f"{one['group']}: {one['value']}" for one in metrics["subgroups"]]
    assert tree.find(f".//{NAMESPACE}FundingSource").text == chai.OPEN


def test_what_people_stated_stands_in_it(schema, content) -> None:
    card, metrics = content
    details = {
        **card["additional_information"]["custom_details"],
        "stated": {"FundingSource": "A grant <of> & more\x00"},
    }
    said = {**card, "additional_information": {**card["additional_information"], "custom_details": details}}
    tree = parsed(chai.applied_model_card(said, metrics, RELEASE))
    schema.assertValid(tree)
    assert tree.find(f".//{NAMESPACE}FundingSource").text == "A grant <of> & more "


def test_a_card_of_nothing_is_valid_and_open(schema) -> None:
    schema.assertValid(parsed(chai.applied_model_card({}, {}, RELEASE)))


def test_the_checklist_has_every_item_of_the_statement() -> None:
    numbers = [one.item.rstrip("abcdefg") for one in tripod.items()]
    assert sorted(set(map(int, numbers))) == list(range(1, 28))
    assert len({one.item for one in tripod.items()}) == len(numbers) == 52
    for one in tripod.items():
        assert one.where or one.answer or one.human, one.item


def test_nothing_is_answered_without_evidence() -> None:
    for one in tripod.checklist({}):
        wanted = next(item for item in tripod.items() if item.item == one["item"])
        general = bool(wanted.answer) and not wanted.kinds
        assert (one["state"] == "open") == (not general)
        assert one["where"] == []
        if one["state"] != "answered":
            assert one["to_fill_in"]


def test_the_evidence_that_is_there_is_told_with_its_place(content) -> None:
    card, metrics = content
    told = {"card": card, "metrics": metrics, "model": {"kind": "risk"}}
    found = {one["item"]: one for one in tripod.checklist(told)}
    assert found["23a"]["state"] == "answered"
    assert found["23a"]["where"] == [
        "metrics.auroc", "metrics.intervals", "metrics.calibration_slope", "metrics.subgroups.*.auroc"
    ]  # fmt: skip
    assert found["17"]["state"] == "open"
    assert found["11"]["answer"]
    other = {one["item"]: one for one in tripod.checklist({**told, "model": {"kind": "event_time"}})}
    assert other["11"]["state"] == "open"


def test_a_version_gives_each_of_its_papers(
    registry: Registry, vault, clock: FixedClock, permit_for: Callable, files: dict[str, bytes], schema
) -> None:
    author = permit_for("models:read", "models:write", "rows:read", "rows:write", principal="pipeline")
    nouns = Nouns(clock)
    papers = Papers(vault, nouns, registry, ModelPackages(vault, nouns, registry))
    ref = registry.register(author, "readmission", TRAINING_SET, files).ref
    assert papers.card(author, ref, "html").startswith(b"<!doctype html>")
    assert papers.card(author, ref, "json") == files["card.json"]
    schema.assertValid(parsed(papers.card(author, ref, "xml")))
    said = msgspec.json.decode(papers.card(author, ref, "tripod"))
    assert sum(said["counts"].values()) == len(said["items"])
    assert next(one for one in said["items"] if one["item"] == "5b")["state"] == "answered"
    folder = papers.bundle(author, ref, "out", onnx=True)
    assert {"card.xml", "tripod-ai.json", "model.onnx", "parity.json", artifact.SIGNATURE} <= set(folder)
    assert "approval.json" not in folder
