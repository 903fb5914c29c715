"""Lineage by boto3: what the trail's nouns say, in SageMaker's shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apps.aws import Clients, clients_of, made_key, refused
from tests.apps.served import own_workspace, recording

from carelake.apps.wiring import Workspace
from carelake.core.arns import account_number
from carelake.core.nouns import Noun

NAMES = ("landing", "snapshot", "trainingset", "model", "endpoint", "prediction", "finding")
REFS = {kind: f"{kind}:{number:064x}" for number, kind in enumerate(NAMES, 1)}
CHAIN = list(REFS.values())
PREFIX = f"arn:aws:sagemaker:us-east-1:{account_number('production')}:"


def arn(kind: str) -> str:
    word = {"endpoint": "context", "finding": "action"}.get(kind, "artifact")
    return f"{PREFIX}{word}/{REFS[kind].replace(':', '-')}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(Path(tmp_path_factory.mktemp("lineage"))) as made:
        with recording(made) as (permit, tx):
            for at, ref in enumerate(CHAIN):
                account = "production"
                sources = (CHAIN[at - 1],) if at else ()
                made.nouns.write(tx, Noun(ref, account, "made", permit.act, sources, {"name": "readmission"}))
            made.nouns.write(tx, Noun("model:" + "f" * 64, "research", "made", permit.act, (), {}))
        yield made


@pytest.fixture(scope="module")
def of(workspace: Workspace, address: str) -> Clients:
    return clients_of(address, made_key(workspace, "operator", purpose="HOPERAT"))


def walked(of: Clients, start: str, **said: Any) -> list[str]:
    found = of("sagemaker").query_lineage(StartArns=[arn(start)], **said)
    by_arn = {arn(kind): kind for kind in NAMES}
    return [by_arn[one["Arn"]] for one in found["Vertices"]]


def test_a_walk_goes_either_way_and_as_deep_as_is_asked(of: Clients) -> None:
    assert walked(of, "model", Direction="Ascendants") == ["model", "trainingset", "snapshot", "landing"]
    assert walked(of, "model", Direction="Descendants") == ["model", "endpoint", "prediction", "finding"]
    assert walked(of, "model", MaxDepth=1) == ["model", "trainingset", "endpoint"]
    assert set(walked(of, "model")) == set(NAMES)


def test_vertices_are_filtered(of: Clients) -> None:
    assert walked(of, "finding", Filters={"LineageTypes": ["Context", "Action"]}) == ["finding", "endpoint"]
    assert walked(of, "finding", Filters={"Types": ["Model"]}) == ["model"]
    assert walked(of, "finding", Filters={"Properties": {"Kind": "landing", "name": "readmission"}}) == ["landing"]
    assert walked(of, "finding", Filters={"CreatedBefore": "2020-01-01T00:00:00Z"}) == []
    assert len(walked(of, "finding", Filters={"CreatedAfter": "2020-01-01T00:00:00Z"})) == len(NAMES)


def test_edges_join_what_is_shown(of: Clients) -> None:
    found = of("sagemaker").query_lineage(StartArns=[arn("finding")], IncludeEdges=True)
    edges = {(e["SourceArn"], e["DestinationArn"]): e["AssociationType"] for e in found["Edges"]}
    assert len(edges) == len(NAMES) - 1
    assert edges[arn("trainingset"), arn("model")] == "ContributedTo"
    assert edges[arn("model"), arn("endpoint")] == "AssociatedWith"
    assert edges[arn("landing"), arn("snapshot")] == "DerivedFrom"


def test_pages_hold_everything_once(of: Clients) -> None:
    told: dict[str, Any] = {"StartArns": [arn("finding")], "MaxResults": 3}
    seen, token = [], None
    for _ in range(5):
        found = of("sagemaker").query_lineage(**told, **({"NextToken": token} if token else {}))
        seen += [one["Arn"] for one in found["Vertices"]]
        token = found.get("NextToken")
        if token is None:
            break
        with refused("ValidationException"):  # a token is good for the same question
            of("sagemaker").query_lineage(StartArns=[arn("model")], NextToken=token)
    assert sorted(seen) == sorted(map(arn, NAMES))


def test_entities_are_listed_and_described(of: Clients) -> None:
    sagemaker = of("sagemaker")
    found = sagemaker.list_artifacts(ArtifactType="Model")["ArtifactSummaries"]
    assert [one["ArtifactArn"] for one in found] == [arn("model")]  # of this account alone
    told = sagemaker.describe_artifact(ArtifactArn=arn("model"))
    assert told["Properties"] == {"Kind": "model", "State": "made", "name": "readmission"}
    assert told["MetadataProperties"]["GeneratedBy"].startswith("act:")
    (action,) = sagemaker.list_actions()["ActionSummaries"]
    assert sagemaker.describe_action(ActionName=action["ActionName"])["ActionArn"] == arn("finding")
    (context,) = sagemaker.list_contexts()["ContextSummaries"]
    assert sagemaker.describe_context(ContextName=context["ContextName"])["ContextArn"] == arn("endpoint")
    oldest = sagemaker.list_artifacts(SortOrder="Ascending", MaxResults=1)["ArtifactSummaries"]
    assert [one["ArtifactArn"] for one in oldest] == [arn("landing")]
    with refused("ResourceNotFound"):
        sagemaker.describe_artifact(ArtifactArn=PREFIX + "artifact/model-" + "f" * 64)


def test_associations_are_of_a_source_or_a_destination(of: Clients) -> None:
    sagemaker = of("sagemaker")
    out = sagemaker.list_associations(SourceArn=arn("model"))["AssociationSummaries"]
    assert [(one["DestinationArn"], one["AssociationType"]) for one in out] == [(arn("endpoint"), "AssociatedWith")]
    into = sagemaker.list_associations(DestinationArn=arn("model"))["AssociationSummaries"]
    assert [one["SourceArn"] for one in into] == [arn("trainingset")]
    assert not sagemaker.list_associations(SourceArn=arn("landing"), DestinationArn=arn("model"))[
        "AssociationSummaries"
    ]
    with refused("ValidationException"):
        sagemaker.list_associations()
