"""The examples, as files: beside the package in a wheel, at the repository's root in a clone."""

from __future__ import annotations

from pathlib import Path

import msgspec

import outbox_cli
from outbox_cli.exits import Failure

Json = dict[str, object]


def examples_folder() -> Path:
    """Return where the examples lie. Raises Failure if they weren't installed."""
    package = Path(outbox_cli.__file__).resolve().parent
    for folder in (package / "examples", package.parent.parent / "examples"):
        if (folder / "welcome_email.json").exists():
            return folder
    raise Failure("The examples, which the demo sends, are not installed here.")


def sample(name: str) -> Json:
    """Return one example as JSON."""
    return msgspec.json.decode((examples_folder() / f"{name}.json").read_bytes(), type=Json)


class SampleRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of rules.json."""

    name: str
    event_type: str
    template_code: str
    channels: list[str]
    condition: msgspec.Raw | None = None
    delay_s: int = 0
    expires_after_s: int | None = None
    priority: str = "normal"
    enabled: bool = True


def sample_rules() -> list[SampleRule]:
    """Return the example rules."""
    path = examples_folder() / "rules.json"
    return msgspec.json.decode(path.read_bytes(), type=list[SampleRule])
