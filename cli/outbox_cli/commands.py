"""All commands, by their names."""

from __future__ import annotations

import typer

from outbox_cli import (
    audit,
    bench,
    configuration,
    dead_letters,
    destinations,
    doctor,
    jobs,
    keys,
    log,
    migrating,
    providers,
    queues,
    recipients,
    schedules,
    sending,
    serving,
    templates,
    top,
)
from outbox_cli.demo import command as demo


def add_to(app: typer.Typer) -> None:
    """Register the commands, in the order in which `--help` lists them."""
    app.command("demo")(demo.demo)
    app.command("serve")(serving.serve)
    app.command("api")(serving.api)
    app.command("dispatcher")(serving.dispatcher)
    app.command("migrate")(migrating.migrate)
    app.command("send")(sending.send)
    for name, module, about in (
        ("jobs", jobs, "Look at jobs, withdraw them, send them again."),
        ("dead-letters", dead_letters, "What will not be tried again by itself."),
        ("queues", queues, "Queues with their figures; pause and resume."),
        ("schedules", schedules, "What comes by the clock: cron, interval, once."),
        ("destinations", destinations, "Hosts and providers: rates, pauses, breakers."),
        ("templates", templates, "Push templates from files, list and preview them."),
        ("recipients", recipients, "The recipient directory."),
        ("keys", keys, "API keys."),
        ("providers", providers, "Tenants' own providers, and new keys for their secrets."),
    ):
        app.add_typer(module.app, name=name, help=about)
    app.add_typer(bench.app, name="bench", help="Measure this machine.")
    app.command("top")(top.top)
    app.command("audit")(audit.audit)
    app.command("log")(log.log)
    app.command("doctor")(doctor.doctor)
    app.command("config")(configuration.config)
