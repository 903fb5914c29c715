"""Write src/carelake/features/groups/aws.json: what botocore's service models demand of the Feature Store's requests.

    python tools/write_featurestore.py

The models are botocore's (Apache-2.0); what is kept are names, types, bounds, patterns and enumerations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import botocore.session

OUT = Path(__file__).resolve().parents[1] / "src" / "carelake" / "features" / "groups" / "aws.json"
SERVICES = {
    "sagemaker": (
        "CreateFeatureGroup",
        "DeleteFeatureGroup",
        "DescribeFeatureGroup",
        "DescribeFeatureMetadata",
        "ListFeatureGroups",
        "UpdateFeatureGroup",
        "UpdateFeatureMetadata",
    ),
    "sagemaker-featurestore-runtime": (
        "BatchGetRecord",
        "BatchWriteRecord",
        "DeleteRecord",
        "GetRecord",
        "ListRecords",
        "PutRecord",
        "UpdateRecord",
    ),
}
KEPT = ("required", "min", "max", "pattern", "enum")


def render() -> str:
    """The file's text."""
    loader = botocore.session.get_session().get_component("data_loader")
    told: dict[str, Any] = {"operations": {}, "shapes": {}}
    for service, operations in SERVICES.items():
        model = loader.load_service_model(service, "service-2")
        for name in operations:
            shape = model["operations"][name]["input"]["shape"]
            told["operations"][name] = f"{service}:{shape}"
            _take(told["shapes"], service, model["shapes"], shape)
    return json.dumps(told, indent=0, sort_keys=True) + "\n"


def _take(into: dict[str, Any], service: str, shapes: dict[str, Any], name: str) -> None:
    key = f"{service}:{name}"
    if key in into:
        return
    found = shapes[name]
    made: dict[str, Any] = {"type": found["type"], **{one: found[one] for one in KEPT if one in found}}
    into[key] = made
    inner = dict(found.get("members", {}))
    if inner:
        made["members"] = {one: f"{service}:{told['shape']}" for one, told in inner.items()}
    if "member" in found:
        made["member"] = f"{service}:{found['member']['shape']}"
        inner["member"] = found["member"]
    for told in inner.values():
        _take(into, service, shapes, told["shape"])


if __name__ == "__main__":
    OUT.write_text(render(), encoding="utf-8")
