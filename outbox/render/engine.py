"""One worker's rendering, without the process around it: sources and schemas in, answers out.

Nothing here bounds time or memory. A MemoryError leaves `perform`, so that the process can end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from jinja2 import Template, meta, nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError, UndefinedError

from outbox.render.number import Number
from outbox.render.sandbox import Sandbox, VariableMissing, lookups
from outbox.render.wire import (
    PREVIEW,
    VALIDATE,
    Answer,
    Frame,
    Preview,
    Problem,
    Rendered,
    RenderFailure,
    Validation,
    Work,
)

MESSAGE_CHARS_MAX = 500
RESERVED = ("user", "meta", "job")
_PARTS = ("subject", "text", "html")
_LINE_BREAKS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f]")

_CONTEXT = msgspec.json.Decoder(dict[str, Any], float_hook=Number)


class _TooLong(Exception):
    """The parts are longer together than they may be."""


class _Compiled:
    """A source's parts, ready to run; or the problems that it has instead."""

    __slots__ = ("parts", "problems")

    def __init__(self, parts: tuple[Template | None, ...], problems: tuple[Problem, ...]) -> None:
        self.parts = parts
        self.problems = problems


class Engine:
    """Renders works against the sources and schemas that it was taught."""

    def __init__(self, *, output_bytes_max: int) -> None:
        self._output_bytes_max = output_bytes_max
        self._plain = Sandbox(autoescape=False)
        self._html = Sandbox(autoescape=True)
        self._sources: dict[int, tuple[str | None, ...]] = {}
        self._compiled: dict[int, _Compiled] = {}
        self._schemas: dict[int, bytes] = {}
        self._checkers: dict[int, Any] = {}

    def learn(self, frame: Frame) -> None:
        """Take in the sources and schemas of a frame. They are compiled when first used."""
        self._sources.update(frame.sources)
        self._schemas.update(frame.schemas)
        # Imported here, so that no message's time limit pays for it.
        if frame.schemas:
            import outbox.render.schema
        if any(html and _has_style(html) for _, _, html in frame.sources.values()):
            import outbox.render.css  # noqa: F401  # for the same reason

    def forget(self, frame: Frame) -> None:
        """Drop what the parent says will not be asked for again."""
        for number in frame.forget_sources:
            self._sources.pop(number, None)
            self._compiled.pop(number, None)
        for number in frame.forget_schemas:
            self._schemas.pop(number, None)
            self._checkers.pop(number, None)

    def perform(self, work: Work) -> Answer:
        """Answer one work. Raises MemoryError, and nothing else."""
        try:
            if work.mode == VALIDATE:
                return self._validate(work)
            return self._answer(work)
        except MemoryError:
            raise
        except Exception as error:
            return _broken(f"it can't be rendered ({type(error).__name__})", "template", None)

    def _answer(self, work: Work) -> Rendered | RenderFailure | Preview:
        try:
            context = _CONTEXT.decode(work.context_json)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            failure = RenderFailure("template.data", "the data is no JSON object", "permanent")
            return Preview(failure, ()) if work.mode == PREVIEW else failure
        if work.locale is not None:
            context.setdefault("locale", work.locale)
        compiled = self._compile(work.source)
        result = self._refuse(work, compiled, context) or self._render(compiled, work, context)
        if work.mode == PREVIEW:
            missing = () if compiled.problems else self._lacking(work.source, context)
            return Preview(result, tuple(missing))
        return result

    def _compile(self, number: int) -> _Compiled:
        compiled = self._compiled.get(number)
        if compiled is None:
            parts: list[Template | None] = []
            problems: list[Problem] = []
            for part, source in zip(_PARTS, self._sources[number], strict=True):
                template: Template | None = None
                found: tuple[Problem, ...] = ()
                if source is not None:
                    template, found = self._sandbox(part).compile_part(part, source)
                parts.append(template)
                problems.extend(found)
            compiled = _Compiled(tuple(parts), tuple(problems))
            self._compiled[number] = compiled
        return compiled

    def _sandbox(self, part: str) -> Sandbox:
        return self._html if part == "html" else self._plain

    def _refuse(
        self, work: Work, compiled: _Compiled, context: dict[str, Any]
    ) -> RenderFailure | None:
        """Say why there is no point in rendering: a broken template, or data of another shape."""
        if compiled.problems:
            first = compiled.problems[0]
            return _broken(first.message, first.part, first.line)
        if work.schema < 0:
            return None
        from outbox.render import schema

        try:
            checker = self._checkers.get(work.schema)
            if checker is None:
                checker = schema.compile_schema(self._schemas[work.schema])
                self._checkers[work.schema] = checker
            data = {key: value for key, value in context.items() if key not in RESERVED}
            fault = schema.check(checker, data)
        except schema.SchemaBroken as error:
            return _broken(str(error), "schema", None)
        except RecursionError:
            return RenderFailure("template.limit", "the schema goes too deep", "permanent")
        except MemoryError:
            raise
        except Exception as error:
            # A pattern that is no regular expression for Python, a division in `multipleOf`.
            return _broken(f"it can't be applied ({type(error).__name__})", "schema", None)
        if fault is None:
            return None
        return RenderFailure("template.data", fault[:MESSAGE_CHARS_MAX], "permanent")

    def _render(
        self, compiled: _Compiled, work: Work, context: dict[str, Any]
    ) -> Rendered | RenderFailure:
        parent = {**self._plain.globals, **context}
        done: list[str | None] = []
        room_bytes = self._output_bytes_max
        for index, template in enumerate(compiled.parts):
            if template is None:
                done.append(None)
                continue
            try:
                text = _joined(template, parent, room_bytes)
            except MemoryError:
                raise
            except Exception as error:
                source = self._sources[work.source][index] or ""
                return self._explain(error, template, _PARTS[index], source)
            room_bytes -= len(text)
            done.append(text)
        subject, text_part, html = done
        if subject is not None:
            subject = _CONTROLS.sub("\ufffd", _LINE_BREAKS.sub(" ", subject).strip())
        rendered = Rendered(_storable(subject), _storable(text_part), _storable(html))
        if _size_bytes(rendered) > self._output_bytes_max:
            return self._too_long()
        if rendered.html is None or not _has_style(rendered.html):
            return rendered
        from outbox.render.css import inline_css

        # Styles are copied to each element that they match: a small sheet can grow a lot.
        styled = msgspec.structs.replace(rendered, html=_storable(inline_css(rendered.html)))
        return styled if _size_bytes(styled) <= self._output_bytes_max else rendered

    def _explain(
        self, error: Exception, template: Template, part: str, source: str
    ) -> RenderFailure:
        """Put an error into words that hold no value of the data."""
        line = _line(error, template, part)
        if isinstance(error, VariableMissing):
            name = self._missing_name(error, part, source, line)
            if name is None:
                hint = error.message if error.name is None else None
                text = hint or "a key that the template looks up by a value is missing"
                return _failure("template.data", text, part, line)
            return _failure("template.variable", f"variable {name!r} is missing", part, line)
        if isinstance(error, _TooLong):
            return self._too_long()
        if isinstance(error, RecursionError):
            return _failure("template.limit", "it calls itself too deeply", part, line)
        if isinstance(error, OverflowError):
            return _failure("template.limit", "a number is too large", part, line)
        if isinstance(error, SecurityError):
            return _broken("the sandbox refused an unsafe operation", part, line)
        if isinstance(error, TemplateRuntimeError) and not isinstance(error, UndefinedError):
            return _broken(error.message or "it can't be run", part, line)
        kind = type(error).__name__
        # These two speak of types only; the texts of others may quote the data.
        said = f"{kind}: {error}" if isinstance(error, TypeError | ZeroDivisionError) else kind
        return _failure("template.data", f"it can't use this data: {said}", part, line)

    def _too_long(self) -> RenderFailure:
        text = f"the output is longer than {self._output_bytes_max} bytes"
        return RenderFailure("template.limit", text, "permanent")

    def _missing_name(
        self, error: VariableMissing, part: str, source: str, line: int | None
    ) -> str | None:
        """Return the name as the template writes it; None where it only came from the data."""
        if error.name is None or error.top_level:
            return error.name
        found = [
            (path, at)
            for path, at in lookups(self._sandbox(part).parse(source))
            if path.rpartition(".")[2] == error.name
        ]
        paths = {path for path, at in found if at == line} or {path for path, _ in found}
        if not paths:
            return None
        return paths.pop() if len(paths) == 1 else error.name

    def _validate(self, work: Work) -> Validation:
        source = self._sources[work.source]
        problems = list(self._compile(work.source).problems)
        if all(part is None for part in source):
            problems.append(Problem("template", None, "it has no subject, no text and no html"))
        if work.schema >= 0:
            from outbox.render import schema

            try:
                schema.compile_schema(self._schemas[work.schema])
            except (schema.SchemaBroken, RecursionError) as error:
                text = str(error) if isinstance(error, schema.SchemaBroken) else "it goes too deep"
                problems.append(Problem("schema", None, text[:MESSAGE_CHARS_MAX]))
        return Validation(tuple(problems))

    def _lacking(self, number: int, context: dict[str, Any]) -> Iterable[str]:
        """Return what the source looks up in vain: top-level names, and paths below those."""
        lacking: set[str] = set()
        for part, source in zip(_PARTS, self._sources[number], strict=True):
            if source is None:
                continue
            tree = self._sandbox(part).parse(source)
            names = meta.find_undeclared_variables(tree)
            lacking.update(names - context.keys())
            lacking.update(_lacking_paths(tree, names & context.keys(), context))
        return sorted(lacking)


def _lacking_paths(
    tree: nodes.Template, names: set[str], context: dict[str, Any]
) -> Iterator[str]:
    for path, _ in lookups(tree):
        name, *keys = path.split(".")
        if name not in names:
            continue
        value, walked = context[name], name
        for key in keys:
            walked = f"{walked}.{key}"
            if not isinstance(value, dict):
                break  # a list's index, a string's method: only running it can tell
            if key not in value:
                if not hasattr(value, key):
                    yield walked
                break
            value = value[key]


def _joined(template: Template, parent: dict[str, Any], chars_max: int) -> str:
    """Run a template; stop it as soon as its output is too long."""
    chunks: list[str] = []
    length = 0
    for chunk in template.root_render_func(template.new_context(parent, shared=True)):
        length += len(chunk)
        if length > chars_max:
            raise _TooLong
        if chunk:
            chunks.append(chunk)
    return "".join(chunks)


def _line(error: Exception, template: Template, part: str) -> int | None:
    """Return the line of the template that was running when `error` was raised."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == f"<{part}>":
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


def _place(message: str, part: str, line: int | None) -> str:
    where = part if line is None else f"{part}, line {line}"
    return f"{message[:MESSAGE_CHARS_MAX]} ({where})"


def _failure(code: Any, message: str, part: str, line: int | None) -> RenderFailure:
    return RenderFailure(code, _place(message, part, line), "permanent")


def _broken(message: str, part: str, line: int | None) -> RenderFailure:
    return RenderFailure("template.broken", _place(message, part, line), "configuration")


def _has_style(html: str) -> bool:
    return "<style" in html or "<STYLE" in html


def _storable(text: str | None) -> str | None:
    """Replace what neither Postgres nor a wire takes: NUL, and surrogates without a partner."""
    if text is None:
        return None
    text = text.replace("\x00", "\ufffd") if "\x00" in text else text
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _size_bytes(rendered: Rendered) -> int:
    parts = (rendered.subject, rendered.text, rendered.html)
    return sum(len(part) if part.isascii() else len(part.encode()) for part in parts if part)
