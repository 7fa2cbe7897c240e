"""`outbox config`: what is in force, and where each value came from."""

from __future__ import annotations

from outbox_cli.database import settings
from outbox_cli.groups import Json
from outbox_cli.shown import print_json, print_table


def config(json: Json = False) -> None:
    """Print the settings in force and where each came from, secrets masked."""
    described = settings().describe()
    if json:
        print_json(
            [{"name": name, "value": value, "source": source} for name, value, source in described]
        )
        return
    print_table(("SETTING", "VALUE", "FROM"), described, empty="There are no settings.")
