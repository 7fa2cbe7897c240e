"""What the commands print: a table for people, JSON for scripts (`--json`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# rich is imported where it is used: `--json` and most errors do without it.

PIPE_WIDTH = 500
"""What goes into a pipe is not wrapped, and never cut."""

STYLES: Mapping[str, str] = {
    "sent": "green",
    "failed": "red",
    "expired": "yellow",
    "cancelled": "dim",
    "retrying": "yellow",
    "processing": "cyan",
    "pending": "cyan",
    "scheduled": "blue",
}


_encoder = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def console() -> Console:
    """Return the console for stdout."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=PIPE_WIDTH, no_color=True)


def print_json(value: object) -> None:
    """Print one JSON document and a line feed. Times are RFC 3339 in UTC, with `Z`."""
    sys.stdout.write(_encoder.encode(value).decode() + "\n")


def as_object(
    row: msgspec.Struct, *, raw: Sequence[str] = (), without: Sequence[str] = ()
) -> dict[str, object]:
    """Return a row as JSON would have it; the fields in `raw` are JSON texts already."""
    found: dict[str, object] = {}
    for name, value in msgspec.structs.asdict(row).items():
        if name in without:
            continue
        found[name] = msgspec.Raw(value.encode()) if name in raw and value is not None else value
    return found


def live_counts(estimated: Sequence[str], **counts: int) -> list[str]:
    """Return figures as they are shown: those that `estimated` names with the sign for it."""
    return [f"≈ {n}" if name in estimated else str(n) for name, n in counts.items()]


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, title: str = ""
) -> None:
    """Print rows under their columns, or the sentence `empty`. Nothing in a cell is markup."""
    from rich.table import Table

    kept = list(rows)
    if not kept:
        sys.stderr.write(f"{empty}\n")
        return
    is_terminal = sys.stdout.isatty()
    table = Table(
        box=None,
        pad_edge=False,
        title=title or None,
        title_justify="left",
        header_style="bold" if is_terminal else "",
    )
    for column in columns:
        table.add_column(column, no_wrap=not is_terminal, overflow="fold")
    for row in kept:
        table.add_row(*(cell(value) for value in row))
    console().print(table)


def cell(value: object) -> Text:
    """Return a value as a table shows it."""
    from rich.text import Text

    match value:
        case Text():
            return value
        case None:
            return Text("")
        case bool():
            return Text("yes" if value else "no")
        case datetime():
            return Text(value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ"))
        case list() | tuple():
            return Text(", ".join(map(str, value)))
        case _:
            # A newline or an escape sequence in somebody's data must not reach the terminal.
            text = "".join(c if c.isprintable() else "�" for c in str(value))
            return Text(text, style=STYLES.get(text, ""))


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line; those without a value are left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields:
        if value is not None and value != "":
            grid.add_row(Text(name, style="bold"), cell(value))
    console().print(grid)
