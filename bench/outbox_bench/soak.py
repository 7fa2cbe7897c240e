"""Whether a dispatcher's memory stays flat over very many deliveries.

Mail and webhooks by turns, to recipients and paths that differ, of an operator's own tenant and
of others with providers of their own, in so many equal parts; after each the memory is read. What
is cached for good, or never given back, shows as parts that each take more than the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

from outbox_bench.arena import Connection, Place, arena
from outbox_bench.channels import add_mail_provider, add_mail_tenant
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Said, machine, tidy
from outbox_bench.orders import Dispatch, Ports, Ready, Sinks
from outbox_bench.store import until_empty
from outbox_bench.usage import children_of, rss_mb, total

TENANTS = ("default", "acme", "umbrella", "initech")
RECIPIENTS = 10_000
WARM_PARTS = 2
"""By then pools are filled, caches full, and the allocator has what it needs."""

FILL = """
select count(*) from outbox.enqueue_many_v1(array(
    select case when n %% 2 = 0
        then jsonb_build_object('channel', 'email', 'user_id', 'user-' || n %% {recipients},
            'template_code', 'welcome', 'locale', 'ru',
            'data', jsonb_build_object('first_name', 'Нуржан ' || n, 'login_url',
                'https://cinema.example/login?u=' || n, 'films', jsonb_build_array(
                    jsonb_build_object('title', 'The Matrix', 'year', 1999))))
        else jsonb_build_object('channel', 'webhook', 'to', %s || '/hook/' || n,
            'data', jsonb_build_object('order', n, 'text', repeat('x', 400))) end
        || jsonb_build_object(
            'meta', jsonb_build_object('event_type', 'order_paid', 'priority', 'normal'))
    from generate_series(%s::int, %s::int) as n), tenant => %s, fill_created => true)
""".replace("{recipients}", str(RECIPIENTS))
FILL_JOBS = 1_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """`deliveries` in all, in so many `parts`."""

    deliveries: int = 100_000
    parts: int = 10
    concurrency: int = 10
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the figures. `grown_mb`: from the part by which it is warm to the last."""
    with arena(options.url) as server, Child(Sinks()) as sinks:
        ports = sinks.ready(Ports)
        with (
            server.fresh(lambda place: _prepare(place, ports)) as place,
            Child(
                Dispatch(url=place.url, smtp_port=ports.smtp, concurrency=options.concurrency)
            ) as dispatcher,
            place.connect() as connection,
        ):
            dispatcher.ready(Ready)
            size = -(-options.deliveries // options.parts)
            own: list[float | None] = []
            renderers: list[float | None] = []
            for part in range(options.parts):
                _enqueue(connection, ports, part * size, (part + 1) * size)
                until_empty(connection)
                own.append(rss_mb(dispatcher.pid))
                renderers.append(total(map(rss_mb, children_of(dispatcher.pid))))
                line = f"{(part + 1) * size} delivered, {own[-1]} MB, renderers {renderers[-1]} MB"
                said(line, done=part + 1, total=options.parts)
            _require_sent(connection, size * options.parts)
        return {
            "benchmark": "soak",
            "deliveries": size * options.parts,
            "rss_mb_by_part": own,
            "renderer_rss_mb_by_part": renderers,
            "grown_mb": _grown(own),
            "renderer_grown_mb": _grown(renderers),
            **machine(server.version()),
        }


def _grown(seen_mb: list[float | None]) -> float | None:
    warm, last = seen_mb[min(WARM_PARTS, len(seen_mb) - 1)], seen_mb[-1]
    return None if warm is None or last is None else tidy(last - warm)


def _prepare(place: Place, ports: Ports) -> None:
    with place.connect() as connection:
        for tenant in TENANTS:
            add_mail_tenant(connection, tenant, users=RECIPIENTS)
            if tenant != "default":
                add_mail_provider(connection, tenant, ports.smtp)


def _enqueue(connection: Connection, ports: Ports, start: int, end: int) -> None:
    for number, first in enumerate(range(start, end, FILL_JOBS)):
        last = min(first + FILL_JOBS, end) - 1
        tenant = TENANTS[(start // FILL_JOBS + number) % len(TENANTS)]
        connection.execute(FILL, (f"http://127.0.0.1:{ports.http}", first, last, tenant))
    connection.execute("select pg_notify('outbox_bell', '')")


def _require_sent(connection: Connection, count: int) -> None:
    """Raise RuntimeError unless every job was sent at its first attempt."""
    row = connection.execute(
        "select count(*), count(*) filter (where status = 'SENT') from outbox.delivery"
    ).fetchone()
    if row != (count, count):
        raise RuntimeError(f"{row} attempts and successes, for {count} jobs")
