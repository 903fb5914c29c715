"""Feature groups with the semantics of SageMaker Feature Store, over the vault (docs/features.md)."""

from carelake.features.groups.definition import Gate, Group
from carelake.features.groups.groups import FeatureGroups
from carelake.features.groups.records import Records

__all__ = ["FeatureGroups", "Gate", "Group", "Records"]
