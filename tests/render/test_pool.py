"""The pool: limits hold, neighbours don't suffer, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from outbox.errors import ConfigError
from outbox.render import (
    Rendered,
    RenderFailure,
    RenderPool,
    RenderRequest,
    TemplateSource,
)
from outbox.render import pool as pool_module

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
FINE = TemplateSource(text="Hi {{ n }}")
TIME_S_MAX = 0.3


def fine(count: int) -> list[RenderRequest]:
    return [RenderRequest(source=FINE, context_json=b'{"n": %d}' % i) for i in range(count)]


def of(text: str, context: bytes = b"{}") -> RenderRequest:
    return RenderRequest(source=TemplateSource(text=text), context_json=context)


def said(answers: Sequence[Rendered | RenderFailure]) -> list[str | None]:
    return [a.text if isinstance(a, Rendered) else a.code for a in answers]


async def until(reached: Callable[[], bool]) -> None:
    """Let the event loop run until it has come about; the test's timeout bounds it."""
    while not reached():
        await asyncio.sleep(0)


def is_at_work(pool: RenderPool, after: int = 0) -> bool:
    """Whether a worker is busy with more than its first `after` requests."""
    for process in pool._workers:
        begun, ended = process.progress()
        if begun > ended >= after:
            return True
    return False


@pytest.mark.parametrize(
    "template",
    [
        "{{ '%0500000000d'|format(1) }}",
        "{{ 'a' * 10**9 }}",
        "{% set x = [0] * 10**9 %}",
        "{{ 'x'|center(10**9) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s * 2 %}"
        "{% endfor %}{{ ns.s|length }}",
        ENDLESS,
        "{{ (10**7)**(10**7) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ 9999999999|string * 99999999 }}",
        "{% for i in range(99999) %}{% set x = (i ~ '<' * 999999)|e %}{% endfor %}",
    ],
)
async def test_a_limit_fails_its_message_alone_and_its_neighbours_are_rendered(
    template: str,
) -> None:
    async with RenderPool(time_s_max=TIME_S_MAX) as pool:
        requests = fine(100)
        requests.insert(50, of(template))
        answers = await pool.render_many(requests)
        failure = answers.pop(50)
        assert isinstance(failure, RenderFailure)
        assert (failure.code, failure.kind) == ("template.limit", "permanent")
        assert said(answers) == [f"Hi {i}" for i in range(100)]


async def test_memory_is_bounded_however_fast_it_is_taken() -> None:
    async with RenderPool(memory_bytes_max=128 * 1024 * 1024) as pool:
        for template in (
            "{{ 'a' * (110 * 10**6) }}",
            "{{ ('a' * 6 * 10**7) ~ ('b' * 6 * 10**7) }}",
        ):
            (answer,) = await pool.render_many([of(template)])
            assert isinstance(answer, RenderFailure)
            assert answer.message == "it needed more than 134217728 bytes of memory"


async def test_many_culprits_in_one_batch_each_fail_alone() -> None:
    async with RenderPool(workers=2, time_s_max=0.05) as pool:
        requests = fine(60)
        for i in range(0, 60, 7):
            requests[i] = of(ENDLESS + str(i) if i % 2 else f"{{{{ 'a' * 10**9 }}}}{i}")
        answers = said(await pool.render_many(requests))
        assert answers == ["template.limit" if i % 7 == 0 else f"Hi {i}" for i in range(60)]


async def test_a_regular_expression_without_an_end_breaks_the_time_limit() -> None:
    request = RenderRequest(
        source=FINE,
        context_json=b'{"n": "%s!"}' % (b"a" * 40),
        schema_json=b'{"properties": {"n": {"pattern": "^(a+)+$"}}}',
    )
    async with RenderPool(time_s_max=TIME_S_MAX) as pool:
        assert said(await pool.render_many([request, *fine(1)])) == ["template.limit", "Hi 0"]


async def test_a_source_that_breaks_its_limits_again_and_again_is_to_blame_itself() -> None:
    async with RenderPool(time_s_max=0.1) as pool:
        endless = [of(ENDLESS)] * 3
        answers = await pool.render_many(endless)
        kinds = [a.kind for a in answers if isinstance(a, RenderFailure)]
        assert kinds == ["permanent", "permanent", "configuration"]
        assert {getattr(a, "message", "") for a in answers} == {"it took longer than 0.1 s"}
        pids = pool.worker_pids
        begun_s = time.monotonic()
        answers = await pool.render_many([*endless * 100, *fine(1)])
        # It rests: 30 s of CPU time otherwise.
        assert time.monotonic() - begun_s < 10
        assert said(answers) == ["template.limit"] * 300 + ["Hi 0"]
        assert {a.kind for a in answers if isinstance(a, RenderFailure)} == {"configuration"}
        assert pids in ((), pool.worker_pids)


async def test_a_killed_worker_is_replaced_and_its_batch_is_rendered() -> None:
    async with RenderPool() as pool:
        (pid,) = pool.worker_pids
        os.kill(pid, signal.SIGKILL)
        assert said(await pool.render_many(fine(200))) == [f"Hi {i}" for i in range(200)]
        assert pool.worker_pids != (pid,)


async def test_a_worker_killed_in_the_middle_of_a_batch_loses_nothing() -> None:
    async with RenderPool() as pool:
        slow = "{% for a in range(30000) %}{% endfor %}{{ n }}"
        requests = [of(slow, b'{"n": %d}' % i) for i in range(100)]
        rendering = asyncio.create_task(pool.render_many(requests))
        for _ in range(2):
            await until(lambda: is_at_work(pool, after=20))
            os.kill(pool.worker_pids[0], signal.SIGKILL)
            await until(lambda: not pool.worker_pids)
        assert said(await rendering) == [str(i) for i in range(100)]


async def test_a_message_that_kills_its_worker_twice_is_given_up() -> None:
    async with RenderPool(time_s_max=60) as pool:
        rendering = asyncio.create_task(pool.render_many([of(ENDLESS), *fine(3)]))
        for _ in range(2):
            await until(lambda: is_at_work(pool))
            os.kill(pool.worker_pids[0], signal.SIGKILL)
            await until(lambda: not pool.worker_pids)
        assert said(await rendering) == ["template.limit", "Hi 0", "Hi 1", "Hi 2"]


async def test_a_stopped_worker_is_replaced_after_a_while() -> None:
    async with RenderPool(time_s_max=0.05) as pool:
        os.kill(pool.worker_pids[0], signal.SIGSTOP)
        assert said(await pool.render_many(fine(3))) == ["Hi 0", "Hi 1", "Hi 2"]


async def test_a_cancelled_call_leaves_the_pool_usable() -> None:
    async with RenderPool(time_s_max=TIME_S_MAX, queue_items_max=300) as pool:
        rendering = asyncio.create_task(pool.render_many([of(ENDLESS), *fine(250)]))
        waiting = asyncio.create_task(pool.render_many(fine(290)))
        await until(lambda: is_at_work(pool))
        rendering.cancel()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rendering
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert said(await pool.render_many(fine(2))) == ["Hi 0", "Hi 1"]


async def test_a_call_waits_while_the_line_is_full_and_callers_are_served_in_order() -> None:
    async with RenderPool(queue_items_max=50) as pool:
        calls = [asyncio.create_task(pool.render_many(fine(120))) for _ in range(20)]
        await until(lambda: len(pool._line) > 0)
        assert len(pool._line) <= 120
        for answers in await asyncio.gather(*calls):
            assert said(answers) == [f"Hi {i}" for i in range(120)]


async def test_a_single_message_does_not_wait_for_a_campaign() -> None:
    async with RenderPool() as pool:
        slow = "{% for a in range(20000) %}{% endfor %}{{ n }}"
        campaign = asyncio.create_task(
            pool.render_many([of(slow, b'{"n": %d}' % i) for i in range(600)])
        )
        await until(lambda: is_at_work(pool))
        assert said(await pool.render_many(fine(1))) == ["Hi 0"]
        assert not campaign.done()
        campaign.cancel()


async def test_requests_that_cannot_be_sent_fail_alone() -> None:
    big = "x" * (pool_module.FRAME_BYTES_SOFT_MAX + 1)
    async with RenderPool() as pool:
        answers = await pool.render_many(
            [
                of(big),
                of("\ud800"),
                of("x", b'{"a": "' + b"x" * 2**21 + b'"}'),
                RenderRequest(source=FINE, schema_json=b" " * 2**20),
                RenderRequest(source=FINE, context_json=b'{"n": 1}', locale="\ud800"),
                *fine(1),
            ]
        )
        broken, data = "template.broken", "template.data"
        assert said(answers) == [broken, broken, data, broken, "Hi 1", "Hi 0"]
        assert await pool.render_many([]) == []


async def test_sources_that_no_longer_fit_the_cache_are_sent_again() -> None:
    async with RenderPool() as pool:
        # 40 sources of 400 kB are twice what a worker keeps.
        requests = [of(f"{i}{{# {'x' * 400_000} #}}") for i in range(40)]
        for _ in range(2):
            assert said(await pool.render_many(requests)) == [str(i) for i in range(40)]


async def test_validation_and_preview_go_through_the_same_limits() -> None:
    async with RenderPool(time_s_max=TIME_S_MAX) as pool:
        (problem,) = await pool.validate(TemplateSource(text="\n{% if %}"))
        assert (problem.part, problem.line) == ("text", 2)
        assert await pool.validate(FINE, schema_json=b'{"type": "object"}') == []
        bomb = "{{ " + "+".join(["'a' * 99999999"] * 40) + " }}"
        assert isinstance(await pool.validate(TemplateSource(text=bomb)), list)
        preview = await pool.preview(of("{{ a }}{{ b|default(1) }}", b"{}"))
        assert preview.missing == ("a", "b")
        preview = await pool.preview(of(ENDLESS))
        assert isinstance(preview.result, RenderFailure)
        assert preview.result.code == "template.limit"


async def test_a_worker_has_no_secrets_and_few_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_SECRET_KEY", "hunter2")
    async with RenderPool() as pool:
        process = Path(f"/proc/{pool.worker_pids[0]}")
        assert b"hunter2" not in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        for line in (
            "Max data size             268435456",
            "Max core file size        0",
            "Max file size             0",
            "Max processes             0",
        ):
            assert line in limits
        kinds = {os.readlink(link).split(":")[0] for link in (process / "fd").iterdir()}
        own = {"/dev/null", "socket", "/memfd"}
        assert kinds <= own | {os.readlink("/proc/self/fd/2").split(":")[0]}


async def test_a_closed_pool_ends_its_workers_and_whoever_waits() -> None:
    async with RenderPool(time_s_max=60, queue_items_max=1) as pool:
        pids = pool.worker_pids
        calls = [asyncio.create_task(pool.render_many([of(ENDLESS)])) for _ in range(4)]
        await until(lambda: is_at_work(pool))
    for call in calls:
        with pytest.raises(RuntimeError, match="closed"):
            await call
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="not open"):
        await pool.render_many(fine(1))


async def test_a_worker_that_cannot_start_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigError, match="can't be started"):
        async with RenderPool(workers=2):
            pass


async def test_while_no_worker_can_start_calls_are_answered_and_later_ones_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RenderPool() as pool:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/bin/false")
            os.kill(pool.worker_pids[0], signal.SIGKILL)
            (answer,) = await pool.render_many(fine(1))
            assert isinstance(answer, RenderFailure)
            assert (answer.code, answer.kind) == ("render.unavailable", "temporary")
        await until(lambda: len(pool.worker_pids) == 1)
        assert said(await pool.render_many(fine(1))) == ["Hi 0"]


@pytest.mark.parametrize(
    "arguments",
    [{"workers": 0}, {"time_s_max": 0}, {"memory_bytes_max": 1}, {"output_bytes_max": 0}],
)
def test_impossible_limits_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RenderPool(**arguments)


def test_it_runs_under_uvloop() -> None:
    async def render() -> list[str | None]:
        async with RenderPool(workers=2, time_s_max=TIME_S_MAX) as pool:
            os.kill(pool.worker_pids[0], signal.SIGKILL)
            answers = await pool.render_many([*fine(2), of(ENDLESS), of("{{ 'a' * 10**9 }}")])
            return said(answers)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = runner.run(render())
    assert answers == ["Hi 0", "Hi 1", "template.limit", "template.limit"]
    gc.collect()


def test_the_asking_process_never_imports_a_template_library() -> None:
    code = "import sys, outbox.render.pool; print({'jinja2', 'jsonschema'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "set()\n"


PARENT = """
import asyncio, sys
from outbox.render import RenderPool, RenderRequest, TemplateSource

async def main():
    async with RenderPool(time_s_max=600) as pool:
        if sys.argv[1] == "busy":
            source = TemplateSource(text=sys.argv[2])
            asyncio.create_task(pool.render_many([RenderRequest(source=source)]))
            process, = pool._workers
            while process.progress()[0] == 0:
                await asyncio.sleep(0)
        print(*pool.worker_pids, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["busy", "idle"])
def test_workers_die_with_a_killed_parent(state: str) -> None:
    command = [sys.executable, "-c", PARENT, state, ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        worker = os.pidfd_open(pid)
        try:
            parent.kill()
            outlived = not select.select([worker], [], [], 20)[0]
            if outlived:
                signal.pidfd_send_signal(worker, signal.SIGKILL)
            assert not outlived
        finally:
            os.close(worker)
