"""Runs many commands at the price of one start: each in a fork of a process that has loaded them.

`python -m tests.cli.forked` reads a JSON list from stdin: how, and the arguments of each command.
`interrupt` gives each a database that accepts and never answers, and sends a SIGINT once it is
asked; `deaf` closes the reader of its stdout first; `in turn` runs one after the other. It prints
a JSON list of [exit code, stdout, stderr].
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from outbox_cli import app, commands
from outbox_cli.app import run

LOADED = commands
WAIT_S_MAX = 30


def main() -> None:
    """Run what stdin asks for."""
    how, wanted = json.load(sys.stdin)
    # Those that wait for a database do so side by side.
    with ThreadPoolExecutor(1 if how in ("in turn", "deaf") else 8) as threads:
        print(json.dumps(list(threads.map(lambda arguments: one(arguments, how), wanted))))


def one(arguments: list[str], how: str) -> tuple[int, str, str]:
    """Run one command to its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        listener = None
        if how == "interrupt":
            listener = socket.create_server(("127.0.0.1", 0))
        reader, writer = os.pipe()
        if how == "deaf":
            os.close(reader)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(writer if how == "deaf" else out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            if listener is not None:
                at = f"me:hunter2@127.0.0.1:{listener.getsockname()[1]}"
                os.environ["OUTBOX_DATABASE_URL"] = f"postgresql://{at}/outbox"
            command(arguments)
        os.close(writer)
        if listener is not None:
            with listener, contextlib.ExitStack() as kept:
                if select.select([listener], [], [], WAIT_S_MAX)[0]:
                    kept.enter_context(listener.accept()[0])
                os.kill(pid, signal.SIGINT)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


def command(arguments: list[str]) -> NoReturn:
    """Be the command line, as `outbox` starts it."""
    sys.argv = ["outbox", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 99
    try:
        run()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    assert app is not None
    main()
