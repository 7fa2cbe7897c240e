"""The audit queries, and the dashboard's pages over HTTP, on weeks of history.

Each query runs as an auditor does, through `outbox_sql.audit`; each page is asked of the API's own
process, by a browser's session. The median of all rounds but the first, which warms the caches, is
shown; and the first one by itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import httpx
import psycopg

from outbox_bench.arena import Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, machine, tidy
from outbox_bench.history import History, write_history
from outbox_bench.http import ADMIN_KEY, free_port
from outbox_bench.orders import Ready, Serve
from outbox_sql.audit import load, names

TOKEN = re.compile(r'x-csrf-token": "([0-9a-f]{64})"')
WAL_SETTINGS = {"max_wal_size": "8GB"}
QUERY_MS_TARGET, OVERVIEW_MS_TARGET = 200, 150

KNOWN = """
select j.tenant_id, j.job_id::text, j.user_id, j.event_id, j.campaign_id, d.recipient
from outbox.job as j join outbox.delivery as d on d.id = j.id
where j.tenant_id = 'default' and j.campaign_id like 'daily-%' and d.status = 'SENT'
  and j.id < outbox.id_floor(now() - interval '1 day')
order by j.id desc limit 1
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much history, and how often each question is asked."""

    deliveries: int = 5_000_000
    days: int = 91
    users: int = 200_000
    waiting: int = 20_000
    rounds: int = 5
    url: str | None = None


class Known(NamedTuple):
    """Keys of a job that is there."""

    tenant: str
    job_id: str
    user_id: str
    event_id: str
    campaign_id: str
    address: str


def measure(options: Options, said: Callable[[str], None]) -> Figures:
    """Return the figures, all of them in milliseconds."""
    history = History(
        deliveries=options.deliveries,
        days=options.days,
        users=options.users,
        waiting=options.waiting,
    )
    with arena(options.url, settings=WAL_SETTINGS) as server:
        began = time.monotonic()
        with server.fresh(lambda place: _fill(place, history, said)) as place:
            filled_s = time.monotonic() - began
            with place.connect() as connection:
                found = connection.execute(KNOWN).fetchone()
                counted = connection.execute(
                    "select (select count(*) from outbox.delivery),"
                    " pg_database_size(current_database())"
                ).fetchone()
            assert found is not None
            assert counted is not None
            known = Known(*(str(value) for value in found))
            queries = _queries(place, known, options.rounds, said)
            pages = _pages(place, known, options.rounds, said)
            return {
                "benchmark": "audit",
                "queries_ms": {name: each["ms"] for name, each in queries.items()},
                "pages_ms": {name: each["ms"] for name, each in pages.items()},
                "slowest_query_ms": max(each["ms"] for each in queries.values()),
                "query_ms_target": QUERY_MS_TARGET,
                "overview_ms_target": OVERVIEW_MS_TARGET,
                "first_ms": {name: each["first_ms"] for name, each in (queries | pages).items()},
                "pages_refused": {
                    name: each["refused"] for name, each in pages.items() if each["refused"]
                },
                "rows": {name: each["rows"] for name, each in queries.items()},
                "deliveries": counted[0],
                "database_bytes": counted[1],
                "filled_s": tidy(filled_s),
                "days": options.days,
                "rounds": options.rounds,
                **machine(server.version()),
            }


def _fill(place: Place, history: History, said: Callable[[str], None]) -> None:
    with place.connect() as connection:
        write_history(connection, history, said)


def _queries(
    place: Place, known: Known, rounds: int, said: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Time each audit query, by its defaults or for the job that is known."""
    given: Mapping[str, dict[str, str]] = {
        "user_history": {"user_id": known.user_id},
        "event_history": {"event_id": known.event_id},
        "job_history": {"job_id": known.job_id},
        "campaign_summary": {"campaign_id": known.campaign_id},
        "address_history": {"address": known.address},
    }
    found = {}
    for name in names():
        query = load(name)
        values = query.values(given.get(name, {}))
        # A connection each, as `outbox audit` and psql have.
        with psycopg.connect(place.admin_url, autocommit=True) as connection:
            connection.execute("set role outbox_auditor")
            rows = 0

            def ask() -> None:
                nonlocal rows
                rows = len(connection.execute(query.statement.encode(), values).fetchall())  # noqa: B023  # called within the round

            found[name] = _timed(ask, rounds) | {"rows": rows}
        said(f"{name}: {found[name]}")
    return found


def _pages(
    place: Place, known: Known, rounds: int, said: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Time what whoever is on call opens."""
    port = free_port()
    pages = {
        "overview": "/",
        "plot_24h": "/plots?range=24h",
        "plot_30d": "/plots?range=30d",
        "queue": "/queues/email",
        "jobs": "/jobs",
        "jobs_failed": "/jobs?status=failed",
        "jobs_waiting": "/jobs?status=pending",
        "search_user": f"/jobs?q={known.user_id}",
        "search_event": f"/jobs?q={known.event_id}",
        "search_campaign": f"/jobs?q={known.campaign_id}",
        "search_address": f"/jobs?q={known.address}",
        "search_nothing": "/jobs?q=nobody-has-this",
        "job": f"/jobs/{known.job_id}",
        "dead_letters": "/dead-letters",
        "dead_letter_list": "/dead-letters/list",
    }
    with (
        Child(Serve(url=place.url, port=port, admin_key=ADMIN_KEY)) as api,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120.0) as browser,
    ):
        api.ready(Ready)
        browser.headers["accept"] = "text/html"
        token = TOKEN.search(browser.get("/sign-in").text)
        assert token is not None
        browser.post("/sign-in", data={"key": ADMIN_KEY, "csrf": token[1]})

        def timed(path: str) -> dict[str, float]:
            refused = 0

            def ask() -> None:
                nonlocal refused
                refused += browser.get(path).status_code != 200

            return _timed(ask, rounds) | {"refused": refused}

        found = {}
        for name, path in pages.items():
            found[name] = timed(path)
            said(f"{name}: {found[name]}")
        return found


def _timed(ask: Callable[[], object], rounds: int) -> dict[str, float]:
    took_ms = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        ask()
        took_ms.append((time.perf_counter() - began) * 1000)
    return {"ms": tidy(median(took_ms[1:])), "first_ms": tidy(took_ms[0])}
