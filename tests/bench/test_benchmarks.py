"""The benchmarks run, and count what they say they count; sizes are tiny, no clock is judged."""

from __future__ import annotations

from outbox_bench import (
    drain,
    enqueue,
    fairness,
    flat,
    http,
    latency,
    mail,
    ordering,
    soak,
    upkeep,
    webhook,
)
from outbox_bench.figures import interleaved, medians, quantile, ratio
from tests.postgres import Server


def said(_: str, /, *, done: int = 0, total: int = 0) -> None:
    """Nobody watches."""


def numbers(figures: dict[str, object], *names: str) -> list[float]:
    """Return figures that must be there."""
    found = [figures[name] for name in names]
    assert all(isinstance(value, int | float) for value in found), figures
    return [float(str(value)) for value in found]


def test_drain_compares_dispatchers_with_the_floor(postgres_server: Server) -> None:
    options = drain.Options(
        jobs=300, rounds=1, processes=(1,), waiting=0, url=postgres_server.admin_url
    )
    figures = drain.measure(options, said)
    assert min(numbers(figures, "jobs_per_s", "floor_jobs_per_s", "ratio_to_floor")) > 0
    # What is written per job is the same on every machine, but for what else the server does.
    assert 100 < numbers(figures, "wal_bytes_per_job")[0] < 20_000
    assert figures["jobs"] == 300


def test_enqueue_compares_doors_with_bare_inserts(postgres_server: Server) -> None:
    options = enqueue.Options(
        seconds=0.2, rounds=1, batch=20, singles=2, batches=1, url=postgres_server.admin_url
    )
    figures = enqueue.measure(options, said)
    names = ("ratio_to_bare", "statement_ratio_to_bare", "batch_ratio_to_bare")
    assert min(numbers(figures, *names)) > 0


def test_http_posts_are_all_accepted(postgres_server: Server) -> None:
    options = http.Options(
        seconds=0.5,
        rounds=1,
        connections=2,
        batch=10,
        batch_connections=1,
        url=postgres_server.admin_url,
    )
    figures = http.measure(options, said)
    names = ("posts_per_s", "empty_per_s", "batch_array_jobs_per_s", "batch_ndjson_jobs_per_s")
    assert min(numbers(figures, *names)) > 0


def test_latency_sees_every_job_started(postgres_server: Server) -> None:
    options = latency.Options(
        samples=2, idle_s=0.1, poll_pause_s=(0.0, 0.1), url=postgres_server.admin_url
    )
    figures = latency.measure(options, said)
    assert min(numbers(figures, "http_p50_ms", "notify_p50_ms", "poll_p99_ms")) > 0


def test_fairness_counts_every_quiet_job_beside_a_backlog(postgres_server: Server) -> None:
    options = fairness.Options(
        tenants=6, noisy=2, backlog=200, seconds=0.3, rounds=1, url=postgres_server.admin_url
    )
    figures = fairness.measure(options, said)
    assert min(numbers(figures, "quiet_p50_ms", "alone_p99_ms", "noisy_per_s")) > 0


def test_mail_and_webhooks_are_all_sent(postgres_server: Server) -> None:
    for benchmark in (mail, webhook):
        options = benchmark.Options(jobs=30, rounds=1, url=postgres_server.admin_url)
        figures = benchmark.measure(options, said)
        assert min(numbers(figures, "per_s", "bare_per_s")) > 0


def test_ordering_drains_past_a_failing_head(postgres_server: Server) -> None:
    options = ordering.Options(
        jobs=200, followers=300, keys=20, key_jobs=20, rounds=1, url=postgres_server.admin_url
    )
    figures = ordering.measure(options, said)
    names = ("jobs_per_s", "alone_jobs_per_s", "many_keys_jobs_per_s", "one_key_jobs_per_s")
    assert min(numbers(figures, *names)) > 0


def test_rounds_take_turns_and_give_medians() -> None:
    order: list[str] = []

    def kind(name: str, values: list[float]) -> dict[str, float | None]:
        order.append(name)
        return {"per_s": values.pop(0)}

    ours, floor = [3.0, 1.0, 2.0], [30.0, 10.0, 20.0]
    found = interleaved(
        {"ours": lambda: kind("ours", ours), "floor": lambda: kind("floor", floor)},
        rounds=3,
        said=said,
    )
    assert order == ["ours", "floor"] * 3
    assert found == {"ours": {"per_s": 2.0}, "floor": {"per_s": 20.0}}


def test_a_figure_that_a_round_lacks_has_no_median() -> None:
    assert medians([{"a": 1.0}, {"a": None}]) == {"a": None}
    assert ratio(None, 2.0) is None
    assert quantile([5.0, 1.0, 3.0], 0.5) == 3.0


def test_upkeep_retires_days_while_jobs_are_drained(postgres_server: Server) -> None:
    options = upkeep.Options(
        jobs=2_000, rounds=1, over_age=1, past_jobs=20, url=postgres_server.admin_url
    )
    figures = upkeep.measure(options, said)
    assert min(numbers(figures, "ratio_to_old", "old_ratio_to_young", "upkeep_enqueue_ms_max")) > 0
    assert figures["retired_days"] == 1


def test_flat_looks_at_every_kind_of_neighbour(postgres_server: Server) -> None:
    options = flat.Options(
        backlogs=(200, 400), ahead=300, pinned=300, sample=100, url=postgres_server.admin_url
    )
    figures = flat.measure(options, said)
    for name in ("backlog_200", "backlog_400", "ahead", "pinned", "one_time"):
        found = figures[name]
        assert isinstance(found, dict)
        assert min(numbers(found, "jobs_per_s")) > 0


def test_a_dispatcher_s_memory_stays_flat_over_100_000_deliveries(postgres_server: Server) -> None:
    options = soak.Options(deliveries=100_000, parts=5, url=postgres_server.admin_url)
    figures = soak.measure(options, said)
    own, renderers = numbers(figures, "grown_mb", "renderer_grown_mb")
    # The 60,000 deliveries after it is warm: 100 bytes kept of each would be 6 MB.
    assert own < 6, figures
    assert renderers < 6, figures
