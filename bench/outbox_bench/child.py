"""`python -m outbox_bench.child ORDER`: one process of a benchmark. See `outbox_bench.children`.

Each work imports only what it needs: a process's memory is one of the figures.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import msgspec

from outbox_bench import orders


class Line:
    """The child's end of the line to its parent."""

    def __init__(self) -> None:
        # stdout is the parent's; whatever else prints goes to stderr.
        self._status_fd = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(self, told: msgspec.Struct) -> None:
        """Tell the parent something: one line."""
        os.write(self._status_fd, msgspec.json.encode(told) + b"\n")

    def wait_for_go(self) -> None:
        """Wait until the parent lets us begin; end where it has gone."""
        if os.read(0, 64) == b"":
            sys.exit(0)

    def end_with_parent(self) -> None:
        """Ask ourselves to stop when the parent's end of stdin closes."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def _watch(self) -> None:
        while os.read(0, 64):
            pass
        os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """Do what the order says."""
    order = msgspec.json.decode(arguments[0], type=orders.AnyOrder)
    line = Line()
    match order:
        case orders.DispatchNoop():
            from outbox_bench.noop import dispatch_noop

            dispatch_noop(order, line)
        case orders.Dispatch():
            from outbox_bench.serving import dispatch

            dispatch(order, line)
        case orders.Floor():
            from outbox_bench.floor import drain

            drain(order, line)
        case orders.Sinks():
            from outbox_bench.sinks import serve

            serve(line)
        case orders.Serve():
            from outbox_bench.serving import serve as serve_api

            serve_api(order, line)
        case orders.Load():
            from outbox_bench.load import post

            post(order, line)
        case orders.BareMail():
            from outbox_bench.bare import send_mails

            send_mails(order, line)
        case orders.BareHooks():
            from outbox_bench.bare import post_hooks

            post_hooks(order, line)
        case orders.Insert():
            from outbox_bench.inserting import insert

            insert(order, line)


if __name__ == "__main__":
    main(sys.argv[1:])
