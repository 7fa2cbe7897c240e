"""Exit codes, and what becomes of an error: one sentence on stderr, never a traceback.

0    done
1    it failed: a job was refused, something was not found, a check found a fault
2    the command line or a setting cannot be used
3    the database is away, or not migrated
130  interrupted
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psycopg
import psycopg.errors as pg

from outbox.errors import ConfigError, InvalidJob, LimitRefused, OutboxError, StoreUnavailable

OK = 0
FAILED = 1
USAGE = 2
DATABASE = 3
INTERRUPTED = 130

FAULTS_SHOWN_MAX = 20


class Failure(Exception):
    """Ends the command with a sentence and an exit code."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code


def say(sentence: str) -> None:
    """Tell the person at the terminal something, on stderr."""
    sys.stderr.write(f"outbox: {sentence}\n")
    sys.stderr.flush()


def run(command: Callable[[], object]) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    # A SIGTERM unwinds: whoever has acquired an embedded server gives it up. Event loops put
    # handlers of their own in this one's place.
    signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = OK
    try:
        _refuse_closed_stdout()
        command()
    except BaseException as error:
        sentence, code = verdict(error)
        if sentence:
            say(sentence)
        if os.environ.get("OUTBOX_LOG_LEVEL", "").lower() == "debug" and sentence:
            raise
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try again at its exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Whoever read our output and has gone (`| head`) has what they wanted.
        if code == OK and not isinstance(error, BrokenPipeError):
            code = FAILED
            say(
                f"stdout did not take all of the answer: {error.strerror}. "
                "What the command changed stays changed."
            )
    sys.exit(code)


def _refuse_closed_stdout() -> None:
    """Raise Failure if whoever started us closed stdout: the answer, a key too, would be lost.

    What is closed of the three is opened first, onto nothing: the next socket would be in its
    place.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has None for what was closed, whatever its types say.
    is_closed = sys.stdout is None
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
    if is_closed:
        raise Failure(
            "stdout is closed, so nothing was done: `>/dev/null` does without the answer."
        )


def leave() -> None:
    """Ignore from here on that somebody wants us to stop: we are about to, and it is not for long.

    When an event loop has closed, its signals have no handler, and the next one would cut off
    the goodbye.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _terminated(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def verdict(error: BaseException) -> tuple[str, int]:
    """Return what to say of an error ("" for nothing), and the exit code."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case SystemExit():
            code = error.code
            return "", code if isinstance(code, int) else FAILED if code else OK
        case Failure():
            return str(error), error.code
        case KeyboardInterrupt():
            return "interrupted.", INTERRUPTED
        case BrokenPipeError():
            return "", OK
        case ConfigError():
            return str(error), USAGE
        case StoreUnavailable() if isinstance(error.__cause__, pg.InsufficientPrivilege):
            return _of_postgres(error.__cause__)
        case StoreUnavailable():
            return _unavailable(error), DATABASE
        case InvalidJob():
            return _faults(error), FAILED
        case LimitRefused():
            return _limits(error), USAGE
        case OutboxError():
            return _sentence(str(error)), FAILED
        case psycopg.Error():
            return _of_postgres(error)
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or type(error).__name__}.", FAILED
        case _:
            # Its text may hold anything, a job's data too: the type and the place are told.
            return (
                f"this is a fault of Outbox's own: {type(error).__name__} in {_place(error)}. "
                "OUTBOX_LOG_LEVEL=debug shows more.",
                FAILED,
            )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "outbox" in frame.filename] or list(frames)
    if not ours:
        return "an unknown place"
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _unavailable(error: StoreUnavailable) -> str:
    if "not migrated" in str(error) or isinstance(error.__cause__, UNMIGRATED):
        return NOT_MIGRATED
    return _sentence(str(error))


UNMIGRATED = (pg.UndefinedTable, pg.UndefinedFunction, pg.InvalidSchemaName)
NOT_MIGRATED = "The database is not migrated for this version: run `outbox migrate`."


def _of_postgres(error: psycopg.Error) -> tuple[str, int]:
    told = _sentence(error.diag.message_primary or str(error).partition("\n")[0])
    match error:
        case _ if isinstance(error, UNMIGRATED):
            return NOT_MIGRATED, DATABASE
        case pg.InsufficientPrivilege():
            return (
                f"The database refused: {told} Run `outbox migrate` as the schema's owner; it "
                "grants this login what it needs.",
                FAILED,
            )
        case psycopg.OperationalError():
            return f"Postgres cannot be reached: {told}", DATABASE
        case _:
            return f"The database refused: {told}", FAILED


def _faults(error: InvalidJob) -> str:
    shown = error.faults[:FAULTS_SHOWN_MAX]
    lines = [f"{fault.pointer or '(whole)'}: {fault.message}" for fault in shown]
    more = len(error.faults) - len(shown)
    lines += [f"and {more} more"] if more > 0 else []
    return "Nothing was stored:\n  " + "\n  ".join(lines)


def _limits(error: LimitRefused) -> str:
    """Return what is wrong, in the words of the command line."""
    text = (
        str(error).replace("path/name", "the name").replace(", or null for", ", or left out for")
    )
    for name, option in {"rate_per_s": "rate", "concurrency_max": "concurrency"}.items():
        text = text.replace(name, option)
    return _sentence(re.sub(r"\b(rate|concurrency|weight|burst)\b", r"--\1", text))


def _sentence(text: str) -> str:
    text = " ".join(text.split()) or "no reason was given"
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
