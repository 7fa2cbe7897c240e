"""What of the chart follows from the code: `make chart` writes it, and a test compares.

The secrets and settings of values.yaml with their schema come from outbox/settings.py, the alerts
from outbox/alerts.py. The rest of these files is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outbox.alerts import ROUND_S, RULES, Rule
from outbox.config_values import Choice, Number, Whole, text_of
from outbox.settings import Config, specs
from tests.deploy.containerfile import ROOT

CHART = ROOT / "deploy/helm/outbox"
BY_THE_CHART = {"HOST", "PORT", "METRICS_PORT", "DATA_DIR", "AUTH", "LEAVE_S"}
"""What the chart decides by itself."""
NO_SECRETS = {"PUSH_URL"}
"""URLs with a default: they can hold a password, and nobody's does."""
RUNBOOK = "docs/runbook.md"


def secrets() -> list[str]:
    """Return the settings that come from secrets."""
    names = [name for name, spec in specs().items() if spec.may_come_from_a_file]
    return [name for name in names if name not in NO_SECRETS]


def plain() -> list[str]:
    """Return the settings that stand in the ConfigMap."""
    return [name for name in specs() if name not in {*secrets(), *BY_THE_CHART}]


def values() -> str:
    """Return values.yaml, with its blocks of secrets and settings as the code has them."""
    text = (CHART / "values.yaml").read_text()
    code = Config(log_format="json")
    for section, lines in (
        ("secrets", [_line(n, f'{{name: "", key: {n.lower()}}}') for n in secrets()]),
        ("settings", [_line(n, _yaml(getattr(code, n.lower()))) for n in plain()]),
    ):
        block = f"{section}:\n{''.join(lines)}"
        text = re.sub(rf"^{section}:\n(?:  .*\n)+", lambda _, b=block: b, text, flags=re.M)  # type: ignore[misc]
    return text


def schema() -> str:
    """Return values.schema.json, with its secrets and settings as the code has them."""
    whole: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    reference = {"type": "string"}
    optional = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"name": reference, "key": reference},
    }
    known = whole["properties"]["secrets"]["properties"]
    whole["properties"]["secrets"]["properties"] = {
        n.lower(): known["database_url"] if n == "DATABASE_URL" else optional for n in secrets()
    }
    whole["properties"]["settings"]["properties"] = {n.lower(): _type(n) for n in plain()}
    return json.dumps(whole, indent=2) + "\n"


def alerts() -> str:
    """Return alerts.yaml: the rules of Prometheus, from the table of the built-in ones."""
    head = (
        "# Written by `make chart` from outbox/alerts.py. Every API process tells the store's\n"
        "# figures, all the same ones: so `max` over them, never `sum`.\n"
    )
    return head + "".join(_alert(rule) for rule in RULES.values()) + _PARTITIONS


def alert_name(rule: Rule) -> str:
    """Return a rule's name as Prometheus has them."""
    return "Outbox" + "".join(word.capitalize() for word in rule.name.split("_"))


def _alert(rule: Rule) -> str:
    return (
        f"- alert: {alert_name(rule)}\n"
        f"  expr: {json.dumps(rule.promql)}\n"
        f"  for: {int(rule.raise_after * ROUND_S)}s\n"
        f"  labels: {{severity: {rule.severity}}}\n"
        f"  annotations:\n"
        f"    summary: {json.dumps(rule.summary)}\n"
        f"    runbook: {RUNBOOK}#{rule.name}\n"
    )


_PARTITIONS = """- alert: OutboxPartitionsMissing
  expr: min(outbox_partition_days_left) < 7
  for: 1h
  labels: {severity: critical}
  annotations:
    summary: Fewer than seven days ahead have partitions; look at the dispatchers.
"""


def _line(name: str, value: str) -> str:
    return f"  # {specs()[name].doc}\n  {name.lower()}: {value}\n"


def _yaml(value: object) -> str:
    if value is None or value == ():
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return text_of(value) if isinstance(value, int | float) else json.dumps(text_of(value))


def _type(name: str) -> dict[str, object]:
    match specs()[name].parser:
        case Whole(least=least, most=most):
            return {"type": ["integer", "null"], "minimum": least, "maximum": most}
        case Number(least=low, most=high):
            return {"type": ["number", "null"], "minimum": low, "maximum": high}
        case Choice(words=words):
            return {"enum": [*words, None]}
    return {"type": ["string", "number", "boolean", "null"]}


def files() -> Iterator[tuple[Path, str]]:
    """Yield what is written, with its text."""
    yield CHART / "values.yaml", values()
    yield CHART / "values.schema.json", schema()
    yield CHART / "alerts.yaml", alerts()


if __name__ == "__main__":
    for path, text in files():
        path.write_text(text)
