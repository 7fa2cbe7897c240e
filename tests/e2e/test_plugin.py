"""Somebody else's package: installed as pip does it, found, and used by a dispatcher."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from outbox.channels.registry import load_handlers, load_queue_handlers
from tests.channels.api_server import Call, Reply, api_server
from tests.engine.desk import Desk, dispatching

PLUGIN = Path(__file__).parents[2] / "examples/plugin"
NOW = "2026-11-22T12:00:00Z"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built and installed into a folder of its own, without the network."""
    target = tmp_path_factory.mktemp("site-packages")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    done = subprocess.run(
        [*pip, *offline, "--target", str(target), str(PLUGIN)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return target


def speak_matrix(call: Call) -> Reply:
    if call.headers["Authorization"] != "Bearer m-token":
        return Reply(401, {"errcode": "M_UNKNOWN_TOKEN"})
    return Reply(200, {"event_id": "$1"})


async def test_a_job_goes_through_a_channel_and_a_queue_of_somebody_else_s(
    desk: Desk, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    (tmp_path / "index.html").write_text("old")
    async with api_server(speak_matrix) as server:
        settings = {
            "PLUGIN_MATRIX_URL": f"http://{server.place}",
            "PLUGIN_MATRIX_TOKEN": "m-token",
            "PLUGIN_CACHE_DIR": str(tmp_path),
        }
        channels = {"matrix": load_handlers(settings)["matrix"]}
        queues = {"cache-purge": load_queue_handlers(settings)["cache-purge"]}
        async with dispatching(desk, queues, channels=channels):
            said = desk.enqueue(
                notify=True,
                channel="matrix",
                to="!room:example.org",
                content="Hello {{ name }}",
                data={"name": "Ann"},
                meta={},
                created_at=NOW,
            )
            purged = desk.enqueue(notify=True, queue="cache-purge", payload={"path": "index.html"})
            escaped = desk.enqueue(notify=True, queue="cache-purge", payload={"path": "../x"})
            await desk.until_status(said, "sent")
            await desk.until_status(purged, "sent")
            await desk.until_status(escaped, "failed")
    (call,) = server.calls
    assert call.path == f"/_matrix/client/v3/rooms/!room:example.org/send/m.room.message/{said}"
    assert call.json == {"msgtype": "m.text", "body": "Hello Ann"}
    assert not (tmp_path / "index.html").exists()
    assert desk.deliveries(escaped) == [("FAILED", 1, "cache.path", False)]


def test_the_example_is_as_short_as_it_claims_to_be() -> None:
    (module,) = PLUGIN.rglob("__init__.py")
    assert len(module.read_text(encoding="utf-8").splitlines()) < 60
