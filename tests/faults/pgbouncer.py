"""A real pgbouncer in transaction mode before a database, for as long as a block runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import pytest

PATHS = "/usr/sbin:/usr/local/sbin"
START_S_MAX = 10.0
AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")
"""pgbouncer, like Postgres, refuses to run as root."""


def pgbouncer_binary() -> str:
    """Return the installed pgbouncer; skip the test where there is none."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{PATHS}")
    if found is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    return found


@contextlib.asynccontextmanager
async def pooled(url: str, folder: Path) -> AsyncIterator[str]:
    """Yield the URL that goes through the pooler: few connections, so that all are shared."""
    binary = pgbouncer_binary()
    parts = urlsplit(url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    users, settings, log = (folder / f"pgbouncer.{end}" for end in ("users", "ini", "log"))
    users.write_text(f'"{parts.username}" "{unquote(parts.password or "")}"\n')
    settings.write_text(
        "[databases]\n"
        f"* = host={parts.hostname} port={parts.port}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {users}\n"
        "pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 200\n"
    )
    command = [binary, str(settings)]
    if os.geteuid() == 0:
        command = [*AS_NOBODY, *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        async with asyncio.timeout(START_S_MAX):
            while not _answers(port):
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.02)
        login = parts.netloc.rpartition("@")[0]
        yield urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
