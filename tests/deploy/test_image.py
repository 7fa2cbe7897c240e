"""What can be told of the image and the compose file without building them."""

from __future__ import annotations

import re

import typer
import yaml

from outbox.config import load_config
from outbox_cli import commands
from tests.deploy.containerfile import ROOT, steps_of

STEPS = list(steps_of())


def test_every_image_is_named_with_a_version() -> None:
    names = [step.words[0] for step in STEPS if step.word == "FROM"]
    names += [start for s in STEPS if (start := s.option("from")) and "/" in start]
    names += re.findall(r"image: (\S+)", (ROOT / "deploy/compose.yaml").read_text())
    assert names
    for name in names:
        assert re.search(r":\d+\.\d+|:v\d", name), name


def test_the_image_runs_as_a_numbered_user_and_holds_one_folder() -> None:
    last = max(i for i, step in enumerate(STEPS) if step.word == "FROM")
    final = STEPS[last:]
    assert [s.rest for s in final if s.word == "USER"] == ["65532:65532"]
    assert [s.words for s in final if s.word == "COPY"] == [["/opt/outbox", "/opt/outbox"]]
    assert not [s for s in final if s.word == "RUN"]


def test_the_image_installs_what_its_commands_need_and_no_more() -> None:
    install = next(s.rest for s in STEPS if s.word == "RUN")
    assert "'.[migrate,api,dispatcher,cli]'" in install
    assert "--constraint" in install


def test_services_of_the_compose_file_are_locked_down_and_their_commands_and_settings_exist() -> (
    None
):
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    app = typer.Typer()
    commands.add_to(app)
    known = {str(each.name) for each in app.registered_commands}
    ours = {n: s for n, s in compose["services"].items() if s["image"].startswith("outbox:")}
    assert set(ours) == {"migrate", "api", "dispatcher"}
    for name, service in ours.items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["command"][0] in known, name
        load_config({name: _filled(text) for name, text in service["environment"].items()})


def _filled(text: str) -> str:
    """Put in what the compose file takes from the environment."""
    return re.sub(r"\$\{\w+:\?\}", "a-long-secret-1", re.sub(r"\$\{\w+:-(\w*)\}", r"\1", text))
