"""What CreateModelPackage would say of a version that was trained here, worked out of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from carelake.core import canonical

__all__ = ["CARD_SECTIONS", "address", "described"]

CARD_SECTIONS = (
    "model_overview",
    "intended_uses",
    "business_details",
    "training_details",
    "evaluation_details",
    "additional_information",
)
_IMAGE = "carelake"
_MAX_CARD = 100_000


def address(account: str, name: str, ref: str, file: str = "") -> str:
    """Where a version, or a file of it, lies, written as S3 has addresses."""
    return f"s3://carelake-models-{account}/{name}/{ref.partition(':')[2]}/{file}"


def described(
    account: str, name: str, ref: str, files: Mapping[str, bytes], training_set: str, said: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields; what ``said`` gives stands."""

    def source(file: str, kind: str = "application/json") -> dict[str, str]:
        digest = f"sha256:{hashlib.sha256(files[file]).hexdigest()}"
        return {"ContentType": kind, "ContentDigest": digest, "S3Uri": address(account, name, ref, file)}

    quality, baseline = source("metrics.json"), source("baseline.json")
    container = {
        "Image": _IMAGE,
        "ModelDataUrl": address(account, name, ref),
        "ModelDataETag": ref.partition(":")[2],
        "Framework": "ONNX" if "model.onnx" in files else "LIGHTGBM" if "model.txt" in files else "CARELAKE",
    }
    found: dict[str, Any] = {
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": ["text/csv", "application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "ModelMetrics": {
            "ModelQuality": {"Statistics": quality},
            "ModelDataQuality": {"Statistics": baseline},
            "Bias": {"Report": quality},
            "Explainability": {"Report": quality},
        },
        "DriftCheckBaselines": {
            "ModelQuality": {"Statistics": quality},
            "ModelDataQuality": {"Statistics": baseline},
        },
        "CustomerMetadataProperties": {"training_set": training_set, "model": ref},
        "Domain": "MACHINE_LEARNING",
        "Task": "CLASSIFICATION",
        "ModelPackageRegistrationType": "Registered",
        "SkipModelValidation": "All",
        "ModelLifeCycle": {"Stage": "Development", "StageStatus": "InProgress"},
    }
    if card := _card(files["card.json"]):
        found["ModelCard"] = {"ModelCardContent": card, "ModelCardStatus": "PendingReview"}
    properties = {**found["CustomerMetadataProperties"], **(said.get("CustomerMetadataProperties") or {})}
    return {**found, **said, "CustomerMetadataProperties": properties}


def _card(data: bytes) -> str:
    """SageMaker's sections of the card, as it has them: one text of JSON, of bounded length."""
    try:
        card = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return ""
    text = canonical.dump({name: card[name] for name in CARD_SECTIONS if name in card}).decode()
    return text if 2 < len(text) <= _MAX_CARD else ""
