"""Files of JSON values: one value, an array of them, or one a line (NDJSON).

Lines are read as they are needed, so a file of any length will do; an array is read whole.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from outbox.errors import Fault
from outbox.jsontext import BadJson, NotJson, read
from outbox_cli.exits import Failure

WHOLE_BYTES_MAX = 256 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"

_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file, or stdin for `-`. Raises Failure that names it."""
    if path == "-":
        yield sys.stdin.buffer
        return
    if Path(path).is_dir():
        raise Failure(f"{path} is a folder; a file of JSON is needed.")
    try:
        file = open(path, "rb")
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        yield file


def values_in(stream: BinaryIO, progress: Callable[[int], object]) -> Iterator[bytes]:
    """Yield each value's text. Raises Failure for what is no JSON, and says where.

    `progress` is called with the bytes read so far.
    """
    seen = 0
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        _limit(line, number)
        if seen == 0:
            line = line.removeprefix(BOM)
        seen += len(line)
        if not line.strip():
            continue
        first = line
        break
    else:
        raise Failure("the file is empty: a JSON value is needed.")
    fault = _not_json(first)
    if first.lstrip().startswith(b"[") or (fault is not None and first.lstrip()[:1] == b"{"):
        rest = stream.read(WHOLE_BYTES_MAX + 1)
        if len(rest) > WHOLE_BYTES_MAX:
            raise Failure(
                f"an array may have {WHOLE_BYTES_MAX // 1024**2} MiB: write one value a line."
            )
        progress(seen + len(rest))
        yield from _whole(first + rest, fault)
        return
    while first:
        if first.strip():
            fault = _not_json(first)
            if fault is not None:
                raise Failure(f"line {number} {fault}.")
            yield first.strip()
        progress(seen)
        first = stream.readline(LINE_BYTES_MAX + 1)
        number += 1
        _limit(first, number)
        seen += len(first)


def faults_of(text: bytes) -> list[Fault]:
    """Return why Postgres could not store this value; [] if it can."""
    try:
        value = read(text)
    except BadJson as error:
        return error.faults
    return [] if isinstance(value, dict) else [Fault("", "must be an object")]


def _whole(text: bytes, fault: str | None) -> Iterator[bytes]:
    told = _not_json(text)
    if told is not None:
        # Two objects, one a line: the first line's own fault says more.
        raise Failure(f"the file {told}." if fault is None else f"line 1 {fault}.")
    if not text.lstrip().startswith(b"["):
        yield text.strip()
        return
    try:
        values = _list_decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        raise Failure("the file nests too deep to be read.") from None
    for value in values:
        yield bytes(value)


def _not_json(text: bytes) -> str | None:
    try:
        read(text)
    except NotJson as error:
        return str(error)
    except BadJson:
        pass  # JSON it is; what Postgres can't store is told by its place
    return None


def _limit(line: bytes, number: int) -> None:
    if len(line) > LINE_BYTES_MAX:
        raise Failure(f"line {number} is longer than {LINE_BYTES_MAX // 1024**2} MiB.")
