"""Whole deliveries by a dispatcher as it is run in production, beside a bare client's loop.

Template, recipients and jobs are in the store; every message is looked up, rendered, sent to a
sink on this machine and recorded with its history. The bare loop sends one ready-made message
over as many connections, and does nothing else. Mail of several tenants goes through providers of
their own, in the same run.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import Literal

from outbox_bench.arena import Arena, Connection, Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Round, Said, interleaved, machine, ratio
from outbox_bench.orders import BareHooks, BareMail, Dispatch, Ports, Ready, Sinks, Took
from outbox_bench.store import pause, resume, settle, until_empty
from outbox_bench.usage import children_of, cpu_s, total, us_per

SUBJECT = "Добро пожаловать, {{ first_name }}!"
TEXT = """Здравствуйте, {{ first_name }}!

Спасибо, что вы с нами. Войти: {{ login_url }}
{% for film in films %}— {{ film.title }}, {{ film.year }}
{% endfor %}"""
HTML = """<html><body><p>Здравствуйте, <b>{{ first_name }}</b>!</p>
<p>Спасибо, что вы с нами. <a href="{{ login_url }}">Войти</a></p>
<ul>{% for film in films %}<li>{{ film.title }} <small>{{ film.year }}</small></li>
{% endfor %}</ul></body></html>"""
USERS = 1_000
FILL_JOBS = 500

FILL_MAIL = """
select count(*) from outbox.enqueue_many_v1(array(
    select jsonb_build_object('channel', 'email', 'user_id', 'user-' || n %% {users},
        'template_code', 'welcome', 'locale', 'ru',
        'data', jsonb_build_object('first_name', 'Нуржан ' || n, 'login_url',
            'https://cinema.example/login?u=' || n, 'films', jsonb_build_array(
                jsonb_build_object('title', 'Москва слезам не верит', 'year', 1979),
                jsonb_build_object('title', 'Қыз Жібек', 'year', 1970),
                jsonb_build_object('title', 'The Matrix', 'year', 1999))),
        'meta', jsonb_build_object('event_type', 'user_registered', 'priority', 'normal'))
    from generate_series(1, %s) as n), tenant => %s, fill_created => true)
""".replace("{users}", str(USERS))
FILL_HOOKS = """
select count(*) from outbox.enqueue_many_v1(array(
    select jsonb_build_object('channel', 'webhook', 'to', %s::text,
        'data', jsonb_build_object('order', n, 'text', repeat('x', 400)),
        'meta', jsonb_build_object('event_type', 'order_paid', 'priority', 'normal'))
    from generate_series(1, %s) as n), fill_created => true)"""

Channel = Literal["email", "webhook"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """`concurrency`: deliveries at once in a process, and connections of the bare loop.

    `tenants`: with mail servers of their own, in rounds beside those of the operator's; 0: none.
    """

    jobs: int = 5_000
    tenants: int = 3
    rounds: int = 3
    processes: int = 1
    concurrency: int = 10
    url: str | None = None


def measure(channel: Channel, options: Options, said: Said) -> Figures:
    """Return the figures of one channel."""
    with arena(options.url) as server, Child(Sinks()) as sinks:
        ports = sinks.ready(Ports)
        kinds = {"bare": partial(_bare_round, channel, ports, options)}
        fills = {"outbox": ["default"]}
        if channel == "email" and options.tenants:
            fills["tenants"] = [f"tenant-{n}" for n in range(options.tenants)]
        with contextlib.ExitStack() as stack:
            for name, tenants in fills.items():
                fill = partial(_fill, channel, ports, options.jobs, tenants)
                template = stack.enter_context(server.filled(fill))
                kinds[name] = partial(_round, server, template, channel, ports, sinks, options)
            found = interleaved(kinds, rounds=options.rounds, said=said)
        ours, bare = found["outbox"], found["bare"]
        several: Figures = {}
        if "tenants" in found:
            several = {
                "tenants": options.tenants,
                "tenants_per_s": found["tenants"]["per_s"],
                "tenants_ratio_to_one": ratio(found["tenants"]["per_s"], ours["per_s"]),
                "tenants_dispatcher_cpu_us": found["tenants"]["dispatcher_cpu_us"],
            }
        return {
            "benchmark": "mail" if channel == "email" else "webhook",
            "per_s": ours["per_s"],
            "bare_per_s": bare["per_s"],
            "ratio_to_bare": ratio(ours["per_s"], bare["per_s"]),
            "dispatcher_cpu_us": ours["dispatcher_cpu_us"],
            "renderer_cpu_us": ours["renderer_cpu_us"],
            "postgres_cpu_us": ours["postgres_cpu_us"],
            "sink_cpu_us": ours["sink_cpu_us"],
            "bare_cpu_us": bare["cpu_us"],
            **several,
            "jobs": options.jobs,
            "rounds": options.rounds,
            "processes": options.processes,
            "concurrency": options.concurrency,
            **machine(server.version()),
        }


def _fill(channel: Channel, ports: Ports, jobs: int, tenants: list[str], place: Place) -> None:
    with place.connect() as connection:
        pause(connection, channel)
        for tenant in tenants:
            add_mail_tenant(connection, tenant, users=USERS)
            if tenant != "default":
                add_mail_provider(connection, tenant, ports.smtp)
        for number, start in enumerate(range(0, jobs, FILL_JOBS)):
            count = min(FILL_JOBS, jobs - start)
            if channel == "email":
                connection.execute(FILL_MAIL, (count, tenants[number % len(tenants)]))
            else:
                url = f"http://127.0.0.1:{ports.http}/hook"
                connection.execute(FILL_HOOKS, (url, count))
        settle(connection)


def add_mail_tenant(connection: Connection, tenant: str, *, users: int) -> None:
    """Have a tenant with a template and users `user-0`, `user-1` and so on."""
    connection.execute(
        "insert into outbox.recipient (tenant_id, user_id, email, locale)"
        " select %s, 'user-' || n, 'user' || n || '@example.com', 'ru'"
        " from generate_series(0, %s) as n",
        (tenant, users - 1),
    )
    connection.execute(
        "insert into outbox.template"
        " (tenant_id, code, channel, locale, version, subject, body_text, body_html)"
        " values (%s, 'welcome', 'email', 'ru', 1, %s, %s, %s)",
        (tenant, SUBJECT, TEXT, HTML),
    )


def add_mail_provider(connection: Connection, tenant: str, port: int) -> None:
    """Give a tenant an SMTP server of its own: the sink."""
    connection.execute(
        "insert into outbox.provider (provider_id, tenant_id, channel, kind, name, config)"
        " values (gen_random_uuid(), %s, 'email', 'smtp', 'main', jsonb_build_object("
        "'smtp_url', 'smtp://127.0.0.1:' || %s::int || '?starttls=off',"
        " 'mail_from', %s || '@example.com'))",
        (tenant, port, tenant),
    )


def _round(
    server: Arena, template: str, channel: Channel, ports: Ports, sinks: Child, options: Options
) -> Round:
    with server.clone(template) as place, contextlib.ExitStack() as stack:
        orders = [
            Dispatch(
                url=place.url, number=n, smtp_port=ports.smtp, concurrency=options.concurrency
            )
            for n in range(1, options.processes + 1)
        ]
        workers = [stack.enter_context(Child(order)) for order in orders]
        for worker in workers:
            worker.ready(Ready)
        connection = stack.enter_context(place.connect())
        pids: dict[str, list[int | None]] = {
            "dispatcher": [*(worker.pid for worker in workers)],
            "renderer": [*(pid for worker in workers for pid in children_of(worker.pid))],
            "postgres": [server.server_pid],
            "sink": [sinks.pid],
        }
        before = {name: _cpu(members) for name, members in pids.items()}
        began = resume(connection, channel)
        ended = until_empty(connection)
        after = {name: _cpu(members) for name, members in pids.items()}
        failed = connection.execute(
            "select error_message, count(*) from outbox.delivery where status <> 'SENT' group by 1"
        ).fetchall()
        if failed:
            raise RuntimeError(f"not all was sent: {failed[:3]}")
    spent = {name: us_per(_minus(after[name], before[name]), options.jobs) for name in pids}
    whole, renderer = spent["dispatcher"], spent["renderer"]
    own = None if whole is None or renderer is None else whole - renderer
    return {
        "per_s": options.jobs / (ended - began),
        "dispatcher_cpu_us": own,
        "renderer_cpu_us": renderer,
        "postgres_cpu_us": spent["postgres"],
        "sink_cpu_us": spent["sink"],
    }


def _cpu(pids: list[int | None]) -> float | None:
    return total(cpu_s(pid) for pid in pids)


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _bare_round(channel: Channel, ports: Ports, options: Options) -> Round:
    count, connections = options.jobs, options.concurrency
    order = (
        BareMail(port=ports.smtp, count=count, connections=connections)
        if channel == "email"
        else BareHooks(port=ports.http, count=count, connections=connections)
    )
    with Child(order) as client:
        client.ready(Ready)
        client.go()
        took = client.told(Took)
    return {"per_s": count / took.took_s, "cpu_us": us_per(took.cpu_s, count)}
