"""Batches over HTTP: with patience for a queue that is full and a service that restarts."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
import msgspec

from outbox.config_values import is_loopback
from outbox.errors import ConfigError, Fault, InvalidJob
from outbox.message import uuid7
from outbox.store.jobs import Enqueued, EnqueueResult
from outbox_cli.exits import DATABASE, Failure

TRIES_MAX = 8
PAUSE_S_MAX = 30.0
TIMEOUT_S = 60.0
TRY_AGAIN = frozenset({429, 502, 503, 504})


class _Item(msgspec.Struct, frozen=True):
    index: int
    result: EnqueueResult
    job_id: str | None = None
    status: str | None = None
    job_ids: tuple[str, ...] | None = None
    errors: tuple[Fault, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    items: list[_Item]


class _Problem(msgspec.Struct, frozen=True):
    title: str = ""
    detail: str = ""
    errors: tuple[Fault, ...] = ()


class HttpDoor:
    """`POST /api/v1/jobs/batch` of a service. A batch that is sent again makes nothing twice."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("--url must be http://host:port or https://host.")
        self._url = url.rstrip("/").removesuffix("/api/v1") + "/api/v1/jobs/batch"
        headers = {"Content-Type": "application/x-ndjson"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            headers=headers, timeout=TIMEOUT_S, trust_env=not is_loopback(parts.hostname)
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def send(self, texts: list[bytes], *, skip_bad: bool) -> list[Enqueued]:
        """Post one batch. Raises InvalidJob, Failure."""
        # A value a line: those of an array may have line feeds between their tokens.
        body = b"\n".join(text.replace(b"\r", b" ").replace(b"\n", b" ") for text in texts)
        answer = await self._post(body, {"atomic": "false"} if skip_bad else {})
        if answer.status_code == 202:
            items = msgspec.json.decode(answer.content, type=_Answer).items
            return [
                Enqueued(
                    item.job_id,
                    item.status,  # type: ignore[arg-type]  # a status of a newer service
                    item.result,
                    item.job_ids,
                    tuple(
                        Fault(f.pointer.removeprefix(f"/{item.index}"), f.message)
                        for f in item.errors
                    )
                    if item.result == "invalid"
                    else (),
                )
                for item in items
            ]
        problem = _problem(answer)
        if answer.status_code in (400, 409, 413, 422) and problem.errors:
            raise InvalidJob(problem.errors)
        raise Failure(
            f"The service answered {answer.status_code}: "
            f"{problem.detail or problem.title or answer.reason_phrase}"
        )

    async def _post(self, body: bytes, query: dict[str, str]) -> httpx.Response:
        """Post until somebody answers who can: the key makes sending it again harmless."""
        headers = {"Idempotency-Key": str(uuid7())}
        for tries in range(1, TRIES_MAX + 1):
            pause_s = min(0.25 * 2**tries, PAUSE_S_MAX)
            try:
                answer = await self._client.post(
                    self._url, content=body, headers=headers, params=query
                )
            except httpx.ConnectError as error:
                if tries >= 3:
                    raise Failure(f"Nobody answers at {self._url}.", DATABASE) from error
            except httpx.HTTPError as error:
                if tries == TRIES_MAX:
                    raise Failure(
                        f"The service does not answer: {type(error).__name__}."
                    ) from error
            else:
                if answer.status_code not in TRY_AGAIN or tries == TRIES_MAX:
                    return answer
                asked = answer.headers.get("Retry-After", "")
                if asked.isdecimal():
                    pause_s = min(float(asked), PAUSE_S_MAX)
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")


def _problem(answer: httpx.Response) -> _Problem:
    try:
        return msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.MsgspecError:
        return _Problem()
