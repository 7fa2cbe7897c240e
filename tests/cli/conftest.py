"""The command line as a user has it: processes, their output and their exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.postgres import Database


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder, with no setting but those of the log."""
    with Shell(tmp_path) as shell:
        yield shell


@pytest.fixture
def outbox(shell: Shell, database: Database) -> Shell:
    """A shell whose commands use this test's migrated database."""
    shell.environ["OUTBOX_DATABASE_URL"] = database.url
    return shell
