"""Checks manifests as the API server does with strict field validation.

Kubernetes' own kinds are checked by kubernetes-validate, custom resources by the schemas of their
projects in tests/deploy/crds. Rules in CEL are not looked at.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no stubs

SCHEMAS = Path(__file__).with_name("crds")


def validate(manifest: dict[str, Any], version: str) -> None:
    """Raise jsonschema's ValidationError for what that version of Kubernetes would refuse.

    Raises kubernetes_validate.SchemaNotFoundError for a kind that nobody here knows.
    """
    named = f"{manifest['kind'].lower()}-{manifest['apiVersion'].replace('/', '-')}.json"
    path = SCHEMAS / named
    if not path.exists():
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    _validator(path).validate(manifest)
    bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
    kubernetes_validate.validate(bare, version, strict=True)


@cache
def _validator(path: Path) -> Draft202012Validator:
    root = _strict(json.loads(path.read_text()))
    root["properties"]["metadata"] = {"type": "object"}  # as every kind's, by Kubernetes' own
    Draft202012Validator.check_schema(root)
    return Draft202012Validator(root)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a structural schema as JSON Schema that refuses what the API server would prune."""
    made = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = _strict(schema[key])
    if "properties" in schema:
        made["properties"] = {name: _strict(of) for name, of in schema["properties"].items()}
    keeps = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if schema.get("type") == "object" and not keeps:
        made.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "pattern" in schema:
        # Go takes flags after the anchor, Python before it alone.
        made["pattern"] = schema["pattern"].replace("^(?i)", "(?i)^")
    return {"anyOf": [{"type": "null"}, made]} if schema.get("nullable") else made
