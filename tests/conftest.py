"""Fixtures that all tests share. `tests/postgres.py` says how the server comes about."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from outbox.embedded import SERVICE_ROLE, EmbeddedServer
from outbox.migrate import migrate
from tests.audit.hand import Hand
from tests.engine.desk import Desk
from tests.postgres import RUN, Database, Databases, Run, Server, binaries_of, shared_server

VERSIONS = ("18", "15")


class WorkerNode(Protocol):
    """What we use of xdist's handle on a worker that is about to start."""

    config: pytest.Config
    workerinput: dict[str, object]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        choices=(*VERSIONS, "all"),
        default="18",
        help="the Postgres to test against: the embedded 18, Debian's 15, or all of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    config.stash[RUN] = Run.begin() if given is None else Run(Path(given["outbox_run"]))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[RUN].end()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerNode) -> None:
    node.workerinput["outbox_run"] = str(node.config.stash[RUN].folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted: str = metafunc.config.getoption("--postgres")
    if "postgres_version" in metafunc.fixturenames and wanted == "all":
        metafunc.parametrize("postgres_version", VERSIONS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def postgres_version(request: pytest.FixtureRequest) -> str:
    """The major version to test against, as text."""
    version: str = getattr(request, "param", None) or request.config.getoption("--postgres")
    return version


@pytest.fixture(scope="session")
def postgres_server(postgres_version: str, pytestconfig: pytest.Config) -> Iterator[Server]:
    """The run's shared server: for what concerns no single database."""
    with shared_server(postgres_version, pytestconfig.stash[RUN]) as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres_server: Server, pytestconfig: pytest.Config) -> Databases:
    """The migrated template, to be cloned: for tests that need more than one database."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    databases = Databases(postgres_server, pytestconfig.stash[RUN], worker)
    databases.prepare()
    return databases


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    """A fresh, migrated database for one test."""
    with databases.clone() as database:
        yield database


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    """A workplace in a fresh database."""
    desk = Desk(database)
    yield desk
    desk.close()


@pytest.fixture
async def hand(desk: Desk) -> AsyncIterator[Hand]:
    """A dispatcher that does one step at a time."""
    hand = await Hand.of(desk)
    yield hand
    await hand.link.close()


@pytest.fixture
def own_server(postgres_version: str, pytestconfig: pytest.Config) -> Iterator[EmbeddedServer]:
    """A private server with the settings of production, migrated, to be stopped and crashed."""
    binaries = binaries_of(postgres_version)
    if binaries is None:
        pytest.skip(f"no binaries of Postgres {postgres_version} on this machine")
    with (
        pytestconfig.stash[RUN].data_dir() as data_dir,
        EmbeddedServer.acquire(data_dir, binaries=binaries) as server,
    ):
        migrate(server.admin_url, service_role=SERVICE_ROLE)
        yield server
