"""The logins of deploy/helm/outbox/examples/cloudnative-pg.yaml: none of them is a superuser."""

from __future__ import annotations

import psycopg
import pytest

from outbox.embedded import EmbeddedServer
from outbox.migrate import migrate
from tests.postgres import RUN, binaries_of


def test_the_operator_s_migrator_migrates_and_its_owner_then_serves(
    pytestconfig: pytest.Config, postgres_version: str
) -> None:
    binaries = binaries_of(postgres_version)
    if binaries is None:
        pytest.skip(f"no binaries of Postgres {postgres_version} on this machine")
    with (
        pytestconfig.stash[RUN].data_dir() as folder,
        EmbeddedServer.acquire(folder, binaries=binaries) as server,
    ):
        with psycopg.connect(server.admin_url_of("postgres"), autocommit=True) as admin:
            admin.execute("create role app login password 'secret'")
            admin.execute("create role migrator login createrole in role app password 'secret'")
            admin.execute("create database app owner app")
        place = server.admin_url_of("app").rpartition("@")[2]
        migrate(f"postgresql://migrator:secret@{place}", service_role="app")
        with psycopg.connect(f"postgresql://app:secret@{place}") as connection:
            for role in ("outbox_api", "outbox_dispatcher"):
                connection.execute("select set_config('role', %s, true)", (role,))
                found = connection.execute("select count(*) from outbox.entry").fetchone()
                assert found == (0,), role
