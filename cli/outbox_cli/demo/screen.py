"""What the demo shows: a table that fills while things arrive, or plain lines in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.style import Style
from rich.table import Table
from rich.text import Text

from outbox_cli.demo.story import Act
from outbox_cli.shown import STYLES, console

REFRESH_PER_S = 10
WIDE = 130
"""Columns of a terminal in which each act has a line of its own."""


class Screen:
    """On a terminal it redraws; in a pipe it prints each thing once; `quiet`: nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console: Console = Console(quiet=True) if quiet else console()
        self._acts: list[Act] = []
        self._doing = ""
        self._told: set[int] = set()
        self._live: Live | None = None
        if sys.stdout.isatty() and not quiet:
            self._live = Live(
                console=self._console, refresh_per_second=REFRESH_PER_S, transient=True
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the part that moves."""
        if self._live is not None:
            self._live.update(Text(""))
            self._live.stop()
            self._live = None

    def doing(self, what: str) -> None:
        """Say what happens now."""
        self._doing = what
        if self._live is None:
            self._console.print(Text(f"… {what}"))
        self.changed(self._acts)

    def changed(self, acts: list[Act]) -> None:
        """Show how the acts stand."""
        self._acts = acts
        if self._live is not None:
            parts: list[RenderableType] = (
                [results(acts, width=self._console.width)] if acts else []
            )
            self._live.update(Group(*parts, Spinner("dots", Text(self._doing))))
            return
        for number, act in enumerate(acts):
            if act.is_over and number not in self._told:
                self._told.add(number)
                took = f"{act.took_s or 0:.1f} s"
                self._console.print(Text(f"  {act.status:<8} {took:>6}  {act.title}"))

    def finish(self, acts: list[Act]) -> None:
        """Print the table for good, after `close`."""
        self._console.print(results(acts, width=self._console.width))
        good = sum(act.is_as_expected for act in acts)
        style = "bold green" if good == len(acts) else "bold red"
        self._console.print(Text(f"{good} of {len(acts)} as expected.", style))

    def tell(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text))


def results(acts: list[Act], *, width: int) -> Table:
    """Return the acts as a table: a line each where that fits, else what arrived is below."""
    is_wide = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("WHAT", overflow="fold", no_wrap=is_wide, ratio=None if is_wide else 1)
    for column in ("CHANNEL", "STATUS", "S"):
        table.add_column(column, no_wrap=True, justify="right" if column == "S" else "left")
    if is_wide:
        table.add_column("TO", no_wrap=True)
        table.add_column("WHAT ARRIVED", overflow="fold")
    for act in acts:
        mark = Text("·", "dim")
        if act.is_over or act.faults:
            mark = Text("✓", "green") if act.is_as_expected else Text("✗", "red")
        said = Text(act.said)
        for fault in act.faults:
            said.append(f" {fault}", "red")
        if act.note:
            said.append(f" ({act.note})", "dim")
        took = Text("" if act.took_s is None else f"{act.took_s:.1f}")
        status = Text(act.status, STYLES.get(act.status, ""))
        if is_wide:
            row = (
                mark,
                Text(act.title),
                Text(act.channel),
                status,
                took,
                Text(act.recipient),
                said,
            )
            table.add_row(*row)
            continue
        what = Text(act.title, "bold")
        if act.recipient:
            what.append(f"\nto {act.recipient}", Style(bold=False, dim=True))
        if said:
            what.append("\n").append_text(Text(style=Style(bold=False)).append_text(said))
        table.add_row(mark, what, Text(act.channel), status, took)
    return table
