"""Traces and metrics as an OTLP endpoint gets them from real processes; and what off costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider

import outbox
from tests.cli.shell import Shell, free_port, until
from tests.e2e.otlp import Collector, collecting
from tests.engine.desk import Desk, Scripted, dispatching
from tests.postgres import Database

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
NAMES = {
    "outbox_queue_size",
    "outbox_oldest_waiting_seconds",
    "outbox_jobs_total",
    "outbox_attempts_total",
    "outbox_attempt_duration_seconds",
    "outbox_pickup_latency_seconds",
    "outbox_dead_letters",
    "outbox_dispatchers",
    "outbox_leases_rescued_total",
    "outbox_late_outcomes_total",
    "outbox_lane_held",
    "outbox_snapshot_age_seconds",
    "outbox_http_requests_total",
    "outbox_http_request_duration_seconds",
}
ADDRESS = "ann.secret@example.com"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def shell(tmp_path: Path, database: Database, collector: Collector) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        shell.environ |= {
            "OUTBOX_DATABASE_URL": database.url,
            "OUTBOX_PORT": str(free_port()),
            "OUTBOX_AUTH": "off",
            "OUTBOX_WEBHOOK_ALLOW": "127.0.0.1",
            "OUTBOX_WEBHOOK_SECRET": "whsec_" + "A" * 32,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }
        yield shell


def _send(url: str, collector: Collector, flags: str) -> dict[str, str]:
    answer = httpx.post(
        f"{url}/api/v1/jobs",
        json={"channel": "webhook", "to": f"{collector.url}/hook", "data": {"for": ADDRESS}},
        headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-{flags}"},
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text
    return until(lambda: collector.hooks[-1] if collector.hooks else None)


def _sent(collector: Collector) -> float:
    """Return how many webhooks were sent, by the metrics that came in last."""
    wanted = {("queue", "webhook"), ("status", "sent")}
    return sum(
        float(point.as_int or point.as_double)
        for point in collector.metrics["outbox_jobs_total"].sum.data_points
        if wanted <= {(a.key, a.value.string_value) for a in point.attributes}
    )


def test_one_trace_leads_from_the_producers_request_to_the_receivers_traceparent(
    shell: Shell, collector: Collector
) -> None:
    serving = shell.start("serve")
    received = _send(serving.ready(), collector, "01")["traceparent"].split("-")
    assert received[1] == TRACE_ID
    wanted = {"POST", "transaction", "process", "claim", "render", "deliver", "record"}
    until(lambda: wanted <= set(collector.of_trace(TRACE_ID)))
    spans = collector.of_trace(TRACE_ID)
    assert spans["POST"].name == "POST /api/v1/jobs"
    assert spans["POST"].parent_span_id.hex() == "00f067aa0ba902b7"
    assert spans["transaction"].parent_span_id == spans["POST"].span_id
    process = spans["process"]
    assert process.parent_span_id == spans["POST"].span_id
    assert [link.span_id for link in process.links] == [spans["POST"].span_id]
    for name in ("claim", "render", "deliver", "record"):
        assert spans[name].parent_span_id == process.span_id
    assert received[2] == spans["deliver"].span_id.hex()
    until(lambda: set(collector.metrics) >= NAMES)
    until(lambda: _sent(collector) == 1)
    until(lambda: "outbox_dispatcher_running" in collector.metrics)
    (line,) = serving.events("job completed")
    assert line["trace_id"] == TRACE_ID
    assert serving.stop() == 0
    assert not any(ADDRESS.encode() in body for body in collector.bodies)
    assert ADDRESS not in serving.log.read_text()


def test_a_request_that_is_not_sampled_leaves_no_span_but_its_context_goes_on(
    shell: Shell, collector: Collector
) -> None:
    serving = shell.start("serve")
    received = _send(serving.ready(), collector, "00")["traceparent"]
    assert received.startswith(f"00-{TRACE_ID}-")
    assert received.endswith("-00")
    assert serving.stop() == 0  # which sends whatever is left
    assert not collector.of_trace(TRACE_ID)


def test_metrics_have_the_same_names_for_prometheus(shell: Shell) -> None:
    serving = shell.start("serve", env={"OTEL_SDK_DISABLED": "true"})
    url = serving.ready()
    httpx.get(f"{url}/api/v1/queues", trust_env=False)
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    types = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert types >= NAMES


async def test_a_dispatcher_without_a_tracer_never_comes_near_tracing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in calls: with tracing off, no function of either module is called."""
    called: list[str] = []

    def profile(frame: object, event: str, argument: object) -> None:
        name = frame.f_code.co_filename  # type: ignore[attr-defined]
        if event == "call" and ("opentelemetry" in name or name.endswith("tracing.py")):
            called.append(name)

    handler = Scripted()
    async with dispatching(desk, {"work": handler}):
        sys.setprofile(profile)
        try:
            job_id = desk.enqueue()
            await desk.until_status(job_id, "sent")
        finally:
            sys.setprofile(None)
    assert called == []


def test_a_python_producers_own_span_is_what_its_job_carries_on(database: Database) -> None:
    tracer = TracerProvider().get_tracer("shop")
    job: dict[str, object] = {
        "channel": "inbox",
        "user_id": "u1",
        "content": "Hello",
        "data": {},
        "meta": {},
        "created_at": "2026-01-01T00:00:00Z",
    }
    with psycopg.connect(database.admin_url) as connection:
        connection.execute(
            "insert into outbox.handler (kind, name) values ('channel', 'inbox'),"
            " ('queue', 'inbox') on conflict do nothing"
        )
        with tracer.start_as_current_span("checkout") as span:
            outbox.enqueue(connection, job)
            outbox.enqueue_many(connection, [job])
        given = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
        outbox.enqueue(connection, job, traceparent=given)
        rows = connection.execute("select traceparent from outbox.job order by id").fetchall()
    context = span.get_span_context()
    own = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    assert [row[0] for row in rows] == [own, own, given]
    with psycopg.connect(database.url) as connection, pytest.raises(ValueError, match="W3C"):
        outbox.enqueue(connection, job, traceparent="nonsense")
