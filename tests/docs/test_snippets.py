"""Every block of code in the documents runs, against a real service, or says why it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from outbox.embedded_cluster import find_binaries
from tests.cli.shell import Shell, free_port
from tests.docs.snippets import script_of, snippets_of
from tests.postgres import Database, Databases

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if snippets_of(path)
]
NOT_RUN_MAX = 20
SCRIPT_S_MAX = 240

pytestmark = pytest.mark.timeout(400)  # several processes, on a machine that may be busy


@dataclass(frozen=True)
class Place:
    """Where the code runs: a folder, an environment, and what stands for the documents' names."""

    folder: Path
    environ: dict[str, str]
    names: dict[str, str]


@pytest.fixture(scope="module")
def place(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A service in sandbox mode on a database of its own, as the quickstart starts it."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("examples", "sql"):
        (folder / name).symlink_to(ROOT / name)
    with databases.clone() as database, Shell(folder) as shell:
        with database.admin_connect(autocommit=True) as admin:  # what the README's shop has
            admin.execute("create table public.customer (name text)")
            admin.execute("grant insert on public.customer to public")
        port = str(free_port())
        shell.environ |= environ_of(database, port)
        shell.start("serve").ready()
        for kind, path in (("templates", "templates"), ("recipients", "recipients.json")):
            assert shell.run(kind, "push", f"examples/{path}").code == 0
        yield Place(
            folder,
            shell.environ,
            {
                "127.0.0.1:8080": f"127.0.0.1:{port}",
                "postgresql://shop@db/app": database.url,
                "postgresql://app@db/app": database.url,
                "postgresql://postgres@db/app": database.admin_url,
            },
        )


def environ_of(database: Database, port: str) -> dict[str, str]:
    """Return what the documents take as given."""
    tools = [str(Path(sys.executable).parent), str(find_binaries()), os.environ["PATH"]]
    return {
        "OUTBOX_DATABASE_URL": database.url,
        "OUTBOX_PORT": port,
        "OUTBOX_MODE": "sandbox",
        "OUTBOX_SECRET_KEY": "documents-are-sealed-under-this",
        "OUTBOX_ADMIN_KEY": "obx_documents_are_run_with_this_key",
        "ADMIN_URL": database.admin_url,
        "PATH": os.pathsep.join(tools),
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_code_in_a_document_runs(path: Path, place: Place) -> None:
    snippets = snippets_of(path)
    for snippet in snippets:
        if snippet.reason is not None:
            print(f"{snippet} is not run: {snippet.reason}")
    if any(s.language == "js" for s in snippets) and shutil.which("node") is None:
        pytest.skip("node is not installed")
    script = script_of(snippets)
    for name, real in place.names.items():
        script = script.replace(name, real)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=place.folder,
        env=place.environ,
        capture_output=True,
        text=True,
        timeout=SCRIPT_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_few_blocks_of_code_are_not_run() -> None:
    left_out = [s for path in DOCUMENTS for s in snippets_of(path) if s.reason is not None]
    run = [s for path in DOCUMENTS for s in snippets_of(path) if s.reason is None]
    for snippet in left_out:
        print(f"{snippet}: {snippet.reason}")
    assert len(left_out) <= NOT_RUN_MAX
    assert len(run) >= 2 * len(left_out)
