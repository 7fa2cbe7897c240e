"""`outbox`, up to where the command line is read: quick to load, so that Ctrl-C finds it ready."""

from __future__ import annotations

import signal


def main() -> None:
    """Run a command; the process ends with its exit code (outbox_cli.exits)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # There is nothing to tidy up until a command runs (outbox_cli.exits), and Python would
        # print a traceback out of whatever import is under way, or lose the interrupt in it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from outbox_cli.app import run

    run()


if __name__ == "__main__":
    main()
