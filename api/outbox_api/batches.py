"""Batches: a JSON array or a JSON value a line, taken apart without ever holding it twice.

Elements are looked at one by one, so a body of 32 MiB never becomes a tree of objects. What
Postgres could not read is replaced by a null, which it refuses by its index; the fault found
here is told instead of that one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from outbox.errors import Fault
from outbox.jsontext import BadJson, NotJson, read
from outbox_api.identity import idempotent_id, needs_id, tenant_of, with_id
from outbox_api.problems import Problem, invalid

ELEMENTS_SURE_MAX = 640_000
"""Up to so many commas, an array can be split in one go: each element costs some 90 bytes."""

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


class Batch(msgspec.Struct, kw_only=True):
    """A batch, ready for the database. `faults` are those found here, by index."""

    jobs_json: str
    count: int
    faults: dict[int, list[Fault]]
    queues: set[str]
    has_no_json: bool = False


def split(body: bytes, *, ndjson: bool, jobs_max: int) -> Iterator[bytes | memoryview]:
    """Yield the elements. Raises Problem: 400 no JSON, 413 too many, 422 no array."""
    count = 0
    for element in _lines(body) if ndjson else _elements(body):
        count += 1
        if count > jobs_max:
            raise Problem(
                413,
                f"A batch may have {jobs_max} jobs.",
                errors=[Fault("", f"must not have more than {jobs_max} jobs")],
            )
        yield element


def _lines(body: bytes) -> Iterator[bytes]:
    for line in body.split(b"\n"):
        if line and not line.isspace():
            yield line


def _elements(body: bytes) -> Iterator[bytes | memoryview]:
    start = body.lstrip()[:1]
    if start != b"[":
        _refuse(body)
    if body.count(b",") <= ELEMENTS_SURE_MAX:
        try:
            yield from (memoryview(element) for element in _raw_list.decode(body))
        except (msgspec.MsgspecError, RecursionError):
            _refuse(body)
        return
    yield from _elements_slowly(body)


def _elements_slowly(body: bytes) -> Iterator[bytes]:
    """Yield the elements of a body that may have millions, and stop where the caller does."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _not_json("is not UTF-8") from None
    decoder = json.JSONDecoder(parse_float=str, parse_int=str)
    place = len(text) - len(text.lstrip()) + 1
    while True:
        while text[place : place + 1].isspace():
            place += 1
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            raise _not_json(f"is not JSON at character {place}") from None
        yield text[place:end].encode()
        place = end
        while text[place : place + 1].isspace():
            place += 1
        if text[place : place + 1] == "]" and not text[place + 1 :].strip():
            return
        if text[place : place + 1] != ",":
            raise _not_json(f"is not JSON at character {place}")
        place += 1


def _refuse(body: bytes) -> None:
    """Say why this is no array that can be split."""
    try:
        value = read(body)
    except NotJson as error:
        raise _not_json(str(error)) from error
    except BadJson as error:
        raise invalid(error.faults) from error
    if not isinstance(value, list):
        raise invalid([Fault("", "must be an array of jobs")])
    raise _not_json("cannot be read")


def _not_json(message: str) -> Problem:
    return Problem(400, f"The body {message}.", errors=[Fault("", message)])


def gather(
    body: bytes,
    *,
    ndjson: bool,
    jobs_max: int,
    job_bytes_max: int,
    tenant: str | None,
    idempotency_key: str | None,
) -> Batch:
    """Take a batch apart and look at each job. Raises Problem as `split` does."""
    texts: list[str] = []
    batch = Batch(jobs_json="", count=0, faults={}, queues=set())
    for index, element in enumerate(split(body, ndjson=ndjson, jobs_max=jobs_max)):
        try:
            job, faults = _look(element, job_bytes_max)
        except NotJson as error:
            job, faults = None, [Fault("", str(error))]
            batch.has_no_json = True
        if job is None:
            batch.faults[index] = faults
            texts.append("null")
            continue
        text = str(element, "utf-8")
        if idempotency_key is not None and needs_id(job):
            key = f"{idempotency_key}/{index}"
            text = with_id(text, job, idempotent_id(tenant_of(job, tenant), key))
        texts.append(text)
        queue = job.get("queue") or job.get("channel")
        if isinstance(queue, str):
            batch.queues.add(queue)
    batch.count = len(texts)
    batch.jobs_json = f"[{','.join(texts)}]"
    return batch


def _look(
    element: bytes | memoryview, job_bytes_max: int
) -> tuple[dict[str, object] | None, list[Fault]]:
    if len(element) > job_bytes_max:
        return None, [Fault("", f"is {len(element)} bytes long, more than {job_bytes_max}")]
    try:
        job = read(element)
    except BadJson as error:
        return None, error.faults
    if not isinstance(job, dict):
        return None, [Fault("", "must be an object")]
    return job, []
