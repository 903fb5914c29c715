"""What each feature is, for people: description, unit, sources, gates, and how it is computed."""

from __future__ import annotations

from typing import Any

from carelake.features.groups.definition import Feature, Gate, Group

__all__ = ["as_json", "markdown"]


def as_json(group: Group) -> list[dict[str, Any]]:
    """One entry for each feature."""
    return [_one(group, feature) for feature in group.features]


def _one(group: Group, feature: Feature) -> dict[str, Any]:
    told = group.said.about.get(feature.name, {})
    parameters = {one["Key"]: one.get("Value", "") for one in told.get("Parameters", ())}
    kind = f"{feature.collection} of {feature.kind}" if feature.collection else feature.kind
    return {
        "name": feature.name,
        "type": kind,
        "description": told.get("Description", _role(group, feature)),
        "unit": parameters.pop("unit", None),
        "source": parameters.pop("source", None),
        "gates": _gates(group.said.gates.get(feature.name)),
        **({"parameters": parameters} if parameters else {}),
    }


def _role(group: Group, feature: Feature) -> str:
    if feature.name == group.record:
        return "record identifier"
    return "event time" if feature.name == group.event else ""


def _gates(gate: Gate | None) -> str:
    if gate is None:
        return ""
    low, high = ("" if one is None else f"{one:g}" for one in (gate.low, gate.high))
    said = [f"{low}..{high}"] if low or high else []
    said += ["one of " + ", ".join(gate.allowed)] if gate.allowed else []
    said += [f"complete {gate.complete:.0%}"] if gate.complete else []
    return "; ".join(said)


def markdown(group: Group) -> str:
    """A section with a table."""
    request = group.said.request
    stores = [name for name, there in (("online", group.online), ("offline", group.offline)) if there is not None]
    lines = [
        f"## {group.name}",
        "",
        str(request.get("Description") or ""),
        "",
        f"Record identifier `{group.record}`, event time `{group.event}` ({group.event_kind}); "
        f"{' and '.join(stores)}; whose a record is: {group.said.subject or 'not said'}. "
        f"A batch that breaks a gate: {group.said.on_breach}.",
        "",
        "| feature | type | unit | gates | source | description |",
        "|---|---|---|---|---|---|",
    ]
    for one in as_json(group):
        cells = (one["name"], one["type"], one["unit"], one["gates"], one["source"], one["description"])
        lines.append("| " + " | ".join(str(cell or "").replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
