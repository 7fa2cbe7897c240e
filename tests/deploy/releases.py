"""Two versions of the product beside each other: folders on PYTHONPATH, over this environment.

There is no release yet whose wheel could be had. So the older version is a commit's packages, by
`git archive`: the last release's, or, until there is one, those of the commit that last changed
the first migration (which is edited in place, so that no code before it fits today's schema). The
newer one is the working tree with a second migration, made to have all that a real one would: new
code needs its `pre` part, and old code cannot live with its `post` part.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.containerfile import ROOT

PACKAGES = ("outbox", "api", "dispatcher", "sql", "cli", "bench", "examples")
MIGRATIONS = "sql/outbox_sql/migrations"
OLDER, NEWER = "0.0.9", "0.2.0"
REVISION = """
from outbox_sql.migrations.apply import apply
revision = "0002_{branch}"
down_revision = "0001_{branch}"
branch_labels = None
depends_on = {depends}
def upgrade():
    apply("0002_{branch}")
"""
PRE = """
alter table outbox.api_process add column flavour text not null default 'old';
alter table outbox.dispatcher add column flavour text not null default 'old';
alter table outbox.job add column flavour text;
"""
POST = """
alter table outbox.api_process alter column flavour drop default;
alter table outbox.dispatcher alter column flavour drop default;
"""
NEW_CODE = {
    "sql/outbox_sql/queries/api_beat.sql": (
        ("schema_revision, pid)\n", "schema_revision, pid, flavour)\n"),
        ("%(pid)s)", "%(pid)s, 'new')"),
    ),
    "outbox/store/engine.py": (
        ('locks, schema_revision)"', 'locks, schema_revision, flavour)"'),
        (f"values ({'%s, ' * 8}%s)", f"values ({'%s, ' * 9}'new')"),
    ),
}
"""What the newer version's code does otherwise."""


@dataclass(frozen=True)
class Release:
    """A version, in a folder of its own. `origin`: where its code is from."""

    version: str
    folder: Path
    origin: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that have `python -m outbox_cli` be this version."""
        roots = [self.folder, *(self.folder / name for name in PACKAGES[1:])]
        return {"PYTHONPATH": ":".join(map(str, roots))}


def older(into: Path) -> Release:
    """Unpack the older version. Skips the test where there is no history of git."""
    folder = into / "older"
    commit = _older_commit()
    if commit is None:
        _copy(folder)
        origin = "the working tree, whose first migration is not committed yet"
    else:
        archive = _git("archive", "--format=tar", commit, "pyproject.toml", *PACKAGES)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        origin = f"commit {commit[:10]}"
    _name(folder, OLDER)
    return Release(OLDER, folder, origin)


def newer(into: Path) -> Release:
    """Copy the working tree, and add what a next version would."""
    folder = into / "newer"
    _copy(folder)
    migrations = folder / MIGRATIONS
    for branch, script in (("pre", PRE), ("post", POST)):
        depends = '("0002_pre",)' if branch == "post" else "None"
        made = REVISION.format(branch=branch, depends=depends)
        (migrations / f"versions/0002_{branch}.py").write_text(made)
        (migrations / f"0002_{branch}").mkdir()
        (migrations / f"0002_{branch}/01.sql").write_text(script)
    for place, changes in NEW_CODE.items():
        text = (folder / place).read_text()
        for before, after in changes:
            assert text.count(before) == 1, (place, before)
            text = text.replace(before, after)
        (folder / place).write_text(text)
    _name(folder, NEWER)
    return Release(NEWER, folder, "the working tree and a second migration")


def _older_commit() -> str | None:
    """Return the commit of the older version; None for the working tree. Skips without git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("an older version's code comes from git, and this is no clone of it")
    described = _git("describe", "--tags", "--abbrev=0", "--match=v*", may_fail=True)
    if described:
        return described.decode().strip()
    if _git("status", "--porcelain", "--", MIGRATIONS):
        return None
    return _git("log", "-1", "--format=%H", "--", MIGRATIONS).decode().strip()


def _git(*words: str, may_fail: bool = False) -> bytes:
    # A clone that another user owns is read all the same: nothing of it is run.
    command = ["git", "-c", f"safe.directory={ROOT}", *words]
    done = subprocess.run(command, cwd=ROOT, check=not may_fail, capture_output=True)
    return b"" if done.returncode else done.stdout


def _copy(folder: Path) -> None:
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)


def _name(folder: Path, version: str) -> None:
    """Have importlib.metadata find this version, with its channels, before the installed one."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"outbox-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: outbox\nVersion: {version}\n")
    lines = []
    for group, points in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
