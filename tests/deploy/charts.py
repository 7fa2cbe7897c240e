"""Renders the chart by Helm's own code, without a cluster."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import helm_python as helm
import yaml

from tests.deploy.containerfile import ROOT

CHART = ROOT / "deploy/helm/outbox"
Manifest: TypeAlias = dict[str, Any]

NEEDED: dict[str, Any] = {"secrets": {"database_url": {"name": "db", "key": "uri"}}}
FULL: dict[str, Any] = {
    "secrets": {
        "database_url": {"name": "db", "key": "uri"},
        "admin_key": {"name": "keys", "key": "admin"},
        "secret_key": {"name": "keys", "key": "secret"},
    },
    "settings": {"mail_from": "Cinema <no-reply@example.com>", "queue_bulk_concurrency": 40},
    "migrations": {
        "adminUrl": "postgresql://migrator@db/outbox",
        "adminPasswordSecret": {"name": "migrator", "key": "password"},
    },
    "api": {"autoscaling": {"enabled": True}},
    "pools": {
        "mail": {
            "queues": ["email", "bulk"],
            "concurrency": {"media-sync": 7},
            "autoscaling": {"enabled": True},
        },
        "rest": {"queues": ["*"], "replicas": 3},
    },
    "keda": {"connectionSecret": {"name": "keda", "key": "url"}},
    "ingress": {"enabled": True, "host": "outbox.example.com", "tlsSecret": "tls"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
    "networkPolicy": {"database": {"to": [{"podSelector": {}}]}},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "keySecret": {"name": "metrics", "key": "key"}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Return values of several files, as Helm lays them over each other."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            known = result.get(key)
            both = isinstance(known, dict) and isinstance(value, dict)
            result[key] = merged(known, value) if both and known is not None else value
    return result


def rendered(values: dict[str, Any], *, upgrade: bool = False) -> list[Manifest]:
    """Return all manifests. Raises helm's errors, those of the schema too."""
    texts = helm.Chart.load(CHART).render(
        json.loads(json.dumps(values)), name="mine", namespace="here", is_upgrade=upgrade,
        is_install=not upgrade,
    )  # fmt: skip
    found = [each for text in texts.values() for each in yaml.safe_load_all(text)]
    return [each for each in found if each]


def pods(manifests: list[Manifest]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return name, metadata and spec of every pod that would run."""
    found = []
    for each in manifests:
        match each["kind"]:
            case "Pod":
                found.append((each["metadata"]["name"], each["metadata"], each["spec"]))
            case "Deployment" | "Job":
                template = each["spec"]["template"]
                found.append((each["metadata"]["name"], template["metadata"], template["spec"]))
    return found
