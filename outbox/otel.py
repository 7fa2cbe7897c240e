"""OpenTelemetry, where it is installed and wanted: the extra `telemetry` and the OTEL_ variables.

Nothing of it is imported until `start` finds that an endpoint is named. The variables are the
standard's own, read by the SDK: OTEL_EXPORTER_OTLP_ENDPOINT (and _TRACES_, _METRICS_), …_HEADERS,
…_TIMEOUT, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_BSP_…,
OTEL_METRIC_EXPORT_INTERVAL, OTEL_SDK_DISABLED; `none` as OTEL_TRACES_EXPORTER or
OTEL_METRICS_EXPORTER leaves that half out.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import Metric
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

SCOPE = "outbox"
CLOSE_S_MAX = 5.0
_ENDPOINT = "OTEL_EXPORTER_OTLP{}ENDPOINT"
_INTERVAL_MS = 60_000
Signal = Literal["TRACES", "METRICS"]

log = structlog.get_logger("outbox.telemetry")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of a series. `counts` (of each bucket by itself) and `total` of a histogram."""

    labels: Mapping[str, str]
    value: float = 0.0
    counts: Sequence[int] = ()
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Series:
    """What is counted under one name. `bounds_s`: the buckets of a histogram."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    about: str
    points: Sequence[Point]
    bounds_s: Sequence[float] = ()


def is_wanted(signal: Signal, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the environment names somewhere to send traces or metrics to."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environ.get(f"OTEL_{signal}_EXPORTER", "otlp").strip() not in ("otlp", ""):
        return False
    return bool(environ.get(_ENDPOINT.format("_")) or environ.get(_ENDPOINT.format(f"_{signal}_")))


class Telemetry:
    """What one process sends: spans by `tracer`, metrics by `send_metrics`."""

    def __init__(
        self,
        resource: Resource,
        provider: TracerProvider | None,
        exporter: OTLPMetricExporter | None,
    ) -> None:
        self._resource = resource
        self._provider = provider
        self._exporter = exporter
        self._began_ns = time.time_ns()

    @property
    def tracer(self) -> Tracer | None:
        """What makes spans; None: traces are not wanted."""
        return None if self._provider is None else self._provider.get_tracer(SCOPE)

    @property
    def wants_metrics(self) -> bool:
        """Whether metrics have somewhere to go."""
        return self._exporter is not None

    async def send_metrics_forever(self, read: Callable[[], Awaitable[list[Series]]]) -> None:
        """Send what `read` returns, once an interval and once more when this is cancelled."""
        interval_s = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", _INTERVAL_MS)) / 1000
        try:
            while True:
                await asyncio.sleep(interval_s)
                await self._send_metrics(read)
        finally:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._send_metrics(read)

    async def _send_metrics(self, read: Callable[[], Awaitable[list[Series]]]) -> None:
        try:
            series = await read()
            await asyncio.to_thread(self._export, series)
        except Exception as error:  # metrics must never end what they are about
            log.warning("metrics cannot be sent", error=type(error).__name__)

    def _export(self, series: list[Series]) -> None:
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        assert self._exporter is not None
        now_ns = time.time_ns()
        metrics = [_metric(one, self._began_ns, now_ns) for one in series]
        scope = ScopeMetrics(InstrumentationScope(SCOPE), metrics, "")
        self._exporter.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]))

    async def close(self) -> None:
        """Send what is left; give up after a few seconds."""
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await asyncio.to_thread(self._shut_down)
        except TimeoutError:
            log.warning("the last spans could not be sent in time")

    def _shut_down(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()
        if self._exporter is not None:
            self._exporter.shutdown()


def start(process: str) -> Telemetry | None:
    """Start what the environment asks for; None where it asks for nothing."""
    wanted: list[Signal] = [signal for signal in ("TRACES", "METRICS") if is_wanted(signal)]
    if not wanted:
        return None
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("telemetry is off: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf")
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("telemetry is off: OTEL_… asks for it, but outbox[telemetry] is not installed")
        return None
    resource = _resource(process)
    provider = None
    if "TRACES" in wanted:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    exporter = OTLPMetricExporter() if "METRICS" in wanted else None
    return Telemetry(resource, provider, exporter)


def _resource(process: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    of_ours = {
        "service.name": "outbox",
        "service.instance.id": f"{socket.gethostname()}/{process}/{os.getpid()}",
        "outbox.process": process,
    }
    said = Resource.create().attributes
    named = str(said.get("service.name", ""))
    if named and not named.startswith("unknown_service"):
        del of_ours["service.name"]
    return Resource.create(of_ours)


def _metric(series: Series, began_ns: int, now_ns: int) -> Metric:
    from opentelemetry.sdk.metrics import export

    cumulative = export.AggregationTemporality.CUMULATIVE
    unit = "s" if series.name.endswith("_seconds") else "1"
    if series.kind == "histogram":
        points = [
            export.HistogramDataPoint(
                dict(point.labels),
                began_ns,
                now_ns,
                sum(point.counts),
                point.total,
                list(point.counts),
                list(series.bounds_s),
                0.0,
                0.0,
            )
            for point in series.points
        ]
        return export.Metric(series.name, series.about, unit, export.Histogram(points, cumulative))
    numbers = [
        export.NumberDataPoint(dict(point.labels), began_ns, now_ns, point.value)
        for point in series.points
    ]
    if series.kind == "gauge":
        return export.Metric(series.name, series.about, unit, export.Gauge(numbers))
    return export.Metric(
        series.name, series.about, unit, export.Sum(numbers, cumulative, is_monotonic=True)
    )
