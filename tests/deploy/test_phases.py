"""Migrations in two phases, and who may start on what they leave."""

from __future__ import annotations

import psycopg

from outbox.migrate import migrate, missing_revisions
from tests.cli.shell import Shell


def test_this_version_starts_on_the_pre_part_and_the_post_part_may_come_later(
    fresh: str,
) -> None:
    migrate(fresh, phase="pre")
    assert missing_revisions(fresh, "pre") == []
    assert missing_revisions(fresh) == ["0001_post"]
    migrate(fresh, phase="post")
    assert missing_revisions(fresh) == []


def test_this_version_starts_on_the_pre_part_of_a_newer_one(fresh: str) -> None:
    migrate(fresh)
    with psycopg.connect(fresh) as admin:
        admin.execute("delete from outbox.alembic_version")
        admin.execute("insert into outbox.alembic_version values ('0002_pre'), ('0001_post')")
    assert missing_revisions(fresh) == []
    migrate(fresh)


def test_the_post_part_is_refused_while_an_older_dispatcher_lives(
    fresh: str, shell: Shell
) -> None:
    migrate(fresh, phase="pre")
    shell.environ["OUTBOX_DATABASE_URL"] = fresh
    with psycopg.connect(fresh, autocommit=True) as admin:
        admin.execute(
            "insert into outbox.dispatcher (epoch, name, version, pid)"
            " values (7, 'old', '0.0.1', 1)"
        )
        refused = shell.run("migrate", "--phase", "post")
        assert refused.code == 1
        assert "dispatcher old (0.0.1)" in refused.err
        assert shell.run("migrate", "--check", "--phase", "pre").code == 0
        assert shell.run("migrate", "--check", "--wait", "1").code == 1
        admin.execute("update outbox.dispatcher set fenced = true")
        assert shell.run("migrate", "--phase", "post").code == 0
        assert shell.run("migrate", "--check").code == 0
