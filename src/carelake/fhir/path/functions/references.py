"""`resolve()`: from a reference to the resource it names, in the same resource, its Bundle, or through a resolver."""

from __future__ import annotations

from typing import Any

from carelake.fhir.definitions import is_resource
from carelake.fhir.path.context import Env
from carelake.fhir.path.model import node
from carelake.fhir.path.registry import function
from carelake.fhir.path.values import Item, Items, system

__all__ = ["reference_text", "referred"]


def reference_text(item: Item) -> str:
    """``Patient/1`` of a Reference, a canonical or a uri; "" for anything else."""
    if item.__class__ is tuple and item[0].__class__ is dict:
        told = item[0].get("reference")
        return told if told.__class__ is str else ""
    value = system(item)
    return value if value.__class__ is str else ""


def referred(item: Item) -> str:
    """The resource type that a reference names by its form or its ``type``, or ""."""
    text = reference_text(item).partition("/_history/")[0]
    parts = text.rsplit("/", 2)
    if len(parts) > 1 and is_resource(parts[-2]):
        return parts[-2]
    told = item[0].get("type") if item.__class__ is tuple and item[0].__class__ is dict else None
    return told if told.__class__ is str else ""


@function("resolve")
def _resolve(items: Items, env: Env, at: int) -> Items:
    found = []
    for item in items:
        text = reference_text(item)
        if text:
            resource = _find(text, env, at)
            if resource is not None:
                found.append(node(resource))
    return found


def _find(text: str, env: Env, at: int) -> dict[str, Any] | None:
    root = env.root(at)
    if text.startswith("#"):
        return _contained(text[1:], env, root, at)
    if isinstance(root, dict) and root.get("resourceType") == "Bundle":
        entry = _entry(text, root)
        if entry is not None:
            return entry
    return None if env.services.resolver is None else env.services.resolver(text)


def _contained(wanted: str, env: Env, root: Any, at: int) -> dict[str, Any] | None:
    holders = [item[0] for item in env.variable("resource", at) if item.__class__ is tuple]
    for holder in (*holders, root):
        if not isinstance(holder, dict):
            continue
        if not wanted:
            return holder  # "#" alone is the container
        for inner in holder.get("contained") or ():
            if inner.__class__ is dict and inner.get("id") == wanted:
                return inner
    return None


def _entry(text: str, bundle: dict[str, Any]) -> dict[str, Any] | None:
    relative = not text.startswith(("http://", "https://", "urn:"))
    for entry in bundle.get("entry") or ():
        resource = entry.get("resource") if entry.__class__ is dict else None
        if resource.__class__ is not dict:
            continue
        url = entry.get("fullUrl", "")
        if url == text or (relative and (url.endswith("/" + text) or _name(resource) == text)):
            return resource
    return None


def _name(resource: dict[str, Any]) -> str:
    return f"{resource.get('resourceType')}/{resource.get('id')}"
