"""How fast one worker renders, and what a message costs the process that asks.

    python bench/parts_render.py [--seconds 3] [--batch 500] [--uvloop]

Prints a JSON object per case. `parent_cpu_us` is the asking process's CPU time per message: what
rendering takes from a dispatcher's event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop

from outbox.render import RenderPool, RenderRequest, TemplateSource, join_context

SMALL = TemplateSource(
    subject="Welcome, {{ first_name }}!",
    text="Hello {{ first_name }},\nsign in: {{ login_url }}\n"
    "Order {{ order.no }}: {{ order.sum }}\n",
    version=1,
)
WITH_HTML = TemplateSource(
    subject=SMALL.subject,
    text=SMALL.text,
    html="<html><body><p>Hello {{ first_name }}</p><ul>"
    "{% for item in items %}<li>{{ item.title }}: {{ item.price }}</li>{% endfor %}</ul>"
    '<p><a href="{{ login_url }}">Sign in</a></p></body></html>',
    version=2,
)
WITH_STYLE = TemplateSource(
    subject=SMALL.subject,
    html=(WITH_HTML.html or "").replace(
        "<body>", "<head><style>p{color:#333;margin:0} li{padding:4px}</style></head><body>"
    ),
    version=3,
)
SCHEMA = (
    b'{"type":"object","required":["first_name"],"properties":{"first_name":{"type":"string"}}}'
)


def context(number: int) -> bytes:
    data = {
        "first_name": f"Айдана {number}",
        "login_url": f"https://cinema.example/login?u={number}",
        "order": {"no": number, "sum": 1990.50},
        "items": [{"title": f"Film {i}", "price": 1.5 * i} for i in range(5)],
    }
    return join_context(json.dumps(data).encode(), meta=b'{"event_type":"user_registered"}')


async def measure(
    name: str, source: TemplateSource, *, seconds: float, batch: int, schema: bytes | None = None
) -> None:
    requests = [
        RenderRequest(source=source, context_json=context(i), locale="ru", schema_json=schema)
        for i in range(batch)
    ]
    async with RenderPool(workers=1) as pool:
        first = await pool.render_many(requests[:1])
        assert type(first[0]).__name__ == "Rendered", first
        await pool.render_many(requests)
        done, cpu, start = 0, time.process_time(), time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            # Two calls at once, as a dispatcher has: one waits while the other is rendered.
            await asyncio.gather(pool.render_many(requests), pool.render_many(requests))
            done += 2 * batch
        cpu = time.process_time() - cpu
        took = time.perf_counter() - start
        alone: list[float] = []
        for request in requests[:200]:
            begun = time.perf_counter()
            await pool.render_many([request])
            alone.append(time.perf_counter() - begun)
    print(
        json.dumps(
            {
                "case": name,
                "messages_per_s": round(done / took),
                "parent_cpu_us": round(cpu / done * 1e6, 1),
                "alone_p50_ms": round(sorted(alone)[len(alone) // 2] * 1e3, 2),
            }
        )
    )


async def main(seconds: float, batch: int) -> None:
    begun = time.perf_counter()
    async with RenderPool(workers=1):
        print(
            json.dumps({"case": "start", "start_ms": round((time.perf_counter() - begun) * 1e3)})
        )
    for name, source, schema in (
        ("subject and text", SMALL, None),
        ("subject, text and HTML with a loop", WITH_HTML, None),
        ("the same with a JSON Schema", WITH_HTML, SCHEMA),
        ("HTML with a style sheet to inline", WITH_STYLE, None),
    ):
        await measure(name, source, seconds=seconds, batch=batch, schema=schema)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    loop_factory = uvloop.new_event_loop if options.uvloop else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main(options.seconds, options.batch))
