"""What `helm test` runs in its pod, against a service that runs."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.shell import Shell, free_port
from tests.deploy.charts import FULL, rendered
from tests.postgres import Database

KEY = "helm-test-admin-key"


def test_the_test_of_the_chart_sends_a_job_and_sees_it_arrive(
    shell: Shell, database: Database
) -> None:
    port = free_port()
    shell.environ |= {
        "OUTBOX_DATABASE_URL": database.url,
        "OUTBOX_PORT": str(port),
        "OUTBOX_ADMIN_KEY": KEY,
        "OUTBOX_MODE": "sandbox",
    }
    key = shell.folder / "key"
    key.write_text(KEY + "\n")
    pod = next(each for each in rendered(FULL) if each["kind"] == "Pod")
    script = pod["spec"]["containers"][0]["args"][0]
    for place, here in (
        ("/run/secrets/outbox/admin_key", str(key)),
        ("http://mine-outbox-api:80", f"http://127.0.0.1:{port}"),
    ):
        assert place in script
        script = script.replace(place, here)
    serving = shell.start("serve")
    serving.ready()
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (0, "sent"), done.stderr
    serving.stop()
