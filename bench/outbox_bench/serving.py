"""The service's own processes, as they are run in production (in a child)."""

from __future__ import annotations

from outbox.config import Config
from outbox.logging_setup import configure_logging
from outbox_bench.child import Line
from outbox_bench.orders import Dispatch, Ready, Serve

CONCURRENCY = 10


def dispatch(order: Dispatch, line: Line) -> None:
    """Run a dispatcher until SIGTERM."""
    from outbox_dispatcher.process import Orders, run

    concurrency = order.concurrency or CONCURRENCY
    config = Config(
        database_url=order.url,
        smtp_url=f"smtp://127.0.0.1:{order.smtp_port}",
        smtp_pool_size=concurrency,
        mail_from="Кинотеатр <noreply@cinema.example>",
        webhook_allow=("127.0.0.1",),
        webhook_secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        queue_concurrency={"EMAIL": concurrency, "WEBHOOK": concurrency},
    )
    configure_logging(level="warning", log_format="console", process="bench")
    line.end_with_parent()
    run(config, order.url, Orders(number=order.number), on_ready=lambda: line.tell(Ready()))


def serve(order: Serve, line: Line) -> None:
    """Run the API, or the empty handler, until SIGTERM."""
    from outbox_api.server import serve as serve_api
    from outbox_bench.empty import empty_app

    config = Config(database_url=order.url, port=order.port, admin_key=order.admin_key)
    configure_logging(level="warning", log_format="console", process="bench")
    line.end_with_parent()
    serve_api(
        config,
        order.url,
        on_ready=lambda _: line.tell(Ready()),
        app=empty_app() if order.empty else None,
    )
