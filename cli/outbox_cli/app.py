"""`outbox`: the command line and what it takes."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from outbox_cli import exits

app = typer.Typer(
    name="outbox",
    help="Notifications that are delivered or accounted for, out of Postgres.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 failed, 2 usage or settings, 3 the database is away.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"outbox {version('outbox')}")
        raise typer.Exit


@app.callback()
def outbox(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Take the options that no command has."""


def run() -> NoReturn:
    """Run a command; the process ends with its exit code (outbox_cli.exits)."""
    from outbox_cli import commands

    commands.add_to(app)
    exits.run(lambda: app(prog_name="outbox"))
