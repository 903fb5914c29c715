"""The key of a step's result: what it reads, by content; the code that makes it; and all that it was told.

SageMaker's own cache compares arguments: other bytes under the same address are a false hit there, and none here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from carelake.core import canonical
from carelake.core.nouns import Noun
from carelake.pipelines.execution import artifacts
from carelake.pipelines.execution.code import code_of
from carelake.pipelines.execution.work import digest_of, given

__all__ = ["key_of"]

_FORM = 1
_ARTIFACT = re.compile(r"artifact:[0-9a-f]{64}")
# Where it runs and what its outputs are called changes no result.
_ASIDE = frozenset(
    {
        "ExperimentConfig",
        "ProcessingResources",
        "ResourceConfig",
        "RoleArn",
        "StoppingCondition",
        "Tags",
        "TransformResources",
    }
)


def key_of(
    kind: str,
    does: str,
    request: Mapping[str, Any],
    context: Mapping[str, str],
    noun: Callable[[str], Noun],
    *,
    local: bool,
) -> str:
    """The key, in hex.

    Args:
        does: ``MODULE:FUNCTION`` of the job.
        request: its arguments, every reference resolved.
        context: in whose sight it works: account, purpose, policies.
        noun: finds an artifact by its ref.
        local: whether it may name files of this machine; the file that is looked at is the one that the step reads.

    Raises:
        What `work.given` raises.
    """
    said = {
        "form": _FORM,
        "type": kind,
        "job": does,
        "code": code_of(does.partition(":")[0]),
        "context": dict(context),
        "request": _by_content({name: one for name, one in request.items() if name not in _ASIDE}, noun, local),
    }
    return canonical.digest(said)


def _by_content(value: Any, noun: Callable[[str], Noun], local: bool) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _by_content(one, noun, local) for name, one in value.items() if name != "S3Output"}
    if isinstance(value, list):
        return [_by_content(one, noun, local) for one in value]
    if isinstance(value, str):
        if value.startswith("file:///"):
            return "sha256:" + digest_of(given(value, local=local).file)
        return _ARTIFACT.sub(lambda found: "files:" + artifacts.content(noun(found[0])), value)
    return value
