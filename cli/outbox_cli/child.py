"""`python -m outbox_cli.child api|dispatcher ORDERS`: one process under the supervisor."""

from __future__ import annotations

import sys

import msgspec

from outbox.logging_setup import configure_logging
from outbox_cli import exits, lifeline
from outbox_cli.database import open_place, settings
from outbox_cli.roles import GRACE_MARGIN_S, Role


def main(arguments: list[str]) -> None:
    """Run what `arguments` (a Role as JSON) say, until it ends."""
    role = msgspec.json.decode(arguments[0], type=Role)
    config = settings()
    ready = lifeline.take_stdout()
    lifeline.follow_parent(grace_s=config.leave_s + config.drain_s + GRACE_MARGIN_S)
    configure_logging(level=config.log_level, log_format=config.log_format, process=role.name)
    with open_place(config) as place:
        if role.kind == "api":
            from outbox_api.server import serve

            serve(config, place.url, on_ready=lambda _: ready())
        else:
            from outbox_dispatcher.process import Orders, run

            orders = Orders(
                queues=None if role.queues is None else frozenset(role.queues),
                drain=role.drain,
                start_paused=role.start_paused,
                number=role.number,
            )
            run(config, place.url, orders, on_ready=ready)
        exits.leave()


if __name__ == "__main__":
    exits.run(lambda: main(sys.argv[1:]))
