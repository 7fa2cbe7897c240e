"""`outbox demo`."""


def demo() -> None:
    """Watch notifications arrive."""
