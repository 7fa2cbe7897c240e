"""An engine in the tests' own process: for what templates say, not for what they cost."""

from __future__ import annotations

from outbox.render import Rendered, RenderFailure, TemplateSource
from outbox.render.engine import Engine
from outbox.render.wire import PREVIEW, RENDER, VALIDATE, Answer, Frame, Preview, Validation, Work

OUTPUT_BYTES_MAX = 64 * 1024


class Desk:
    """Teaches an engine a source and asks for its answer, one at a time."""

    def __init__(self) -> None:
        self._engine = Engine(output_bytes_max=OUTPUT_BYTES_MAX)
        self._next = 0

    def _perform(
        self, mode: int, source: TemplateSource, context: bytes, locale: str | None, schema: bytes
    ) -> Answer:
        self._next += 1
        number = self._next
        parts = (source.subject, source.text, source.html)
        work = Work(mode, number, number if schema else -1, context, locale)
        frame = Frame({number: parts}, {number: schema} if schema else {}, [], [], [work])
        self._engine.learn(frame)
        return self._engine.perform(work)

    def render(
        self,
        source: TemplateSource,
        context: bytes = b"{}",
        *,
        locale: str | None = None,
        schema: bytes = b"",
    ) -> Rendered:
        answer = self._perform(RENDER, source, context, locale, schema)
        assert isinstance(answer, Rendered), answer
        return answer

    def text(self, template: str, context: bytes = b"{}") -> str:
        rendered = self.render(TemplateSource(text=template), context)
        assert rendered.text is not None
        return rendered.text

    def failure(
        self, source: TemplateSource | str, context: bytes = b"{}", *, schema: bytes = b""
    ) -> RenderFailure:
        if isinstance(source, str):
            source = TemplateSource(text=source)
        answer = self._perform(RENDER, source, context, None, schema)
        assert isinstance(answer, RenderFailure), answer
        return answer

    def preview(self, source: TemplateSource, context: bytes) -> Preview:
        answer = self._perform(PREVIEW, source, context, None, b"")
        assert isinstance(answer, Preview), answer
        return answer

    def validate(self, source: TemplateSource, schema: bytes = b"") -> Validation:
        answer = self._perform(VALIDATE, source, b"{}", None, schema)
        assert isinstance(answer, Validation), answer
        return answer
