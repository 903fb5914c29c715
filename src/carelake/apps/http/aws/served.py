"""What the doors of AWS's shape serve: one entry for each operation, told of by the modules of the services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from carelake.apps.http.ports import Door
from carelake.core.arns import arn, resource_of
from carelake.core.permit import Permit

__all__ = ["Asked", "Run", "Served", "snake"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, its caller let through the gate.

    Attributes:
        said: the operation's input, checked by its model.
    """

    door: Door
    permit: Permit
    said: Mapping[str, Any]

    def arn(self, resource: str) -> str:
        """The ARN of a thing of the caller's account, for example ``endpoint/readmission``."""
        return arn("sagemaker", self.permit.account, resource)

    def named(self, text: str, kind: str) -> str:
        """The name in a text that is a name or an ARN of this kind, in the caller's account.

        Raises:
            Invalid: ``core.arn``.
        """
        return resource_of(text, "sagemaker", self.permit.account).removeprefix(f"{kind}/")


Run = Callable[[Asked], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Served:
    """One operation that is served.

    Attributes:
        action: what the gate is asked for; by what is said, where that decides.
        target: what it is done to, a word that acts may tell; by what is said, as `action`.
        changes: whether it changes something, so that one signature of it is taken once.
        quick: as of `routes.Operation`.
        again: of what makes something and takes a token: whether that was made by an earlier request, so that its
            tags stay as they are.
    """

    service: str
    name: str
    action: str | Callable[[Mapping[str, Any]], str]
    target: str | Callable[[Mapping[str, Any]], str]
    run: Run
    changes: bool = False
    quick: bool = False
    again: Callable[[Asked], bool] | None = None

    @property
    def tagged(self) -> bool:
        """Whether what it makes may have tags."""
        return self.name.startswith("Create")

    def action_of(self, said: Mapping[str, Any]) -> str:
        """The action of one request."""
        return self.action if isinstance(self.action, str) else self.action(said)

    def target_of(self, said: Mapping[str, Any]) -> str:
        """The target of one request."""
        return self.target if isinstance(self.target, str) else self.target(said)


def snake(said: Mapping[str, Any]) -> dict[str, Any]:
    """Members as keywords of Python, as botocore names them: ``FeatureNames`` is ``feature_names``."""
    from botocore import xform_name

    return {xform_name(name): value for name, value in said.items()}
