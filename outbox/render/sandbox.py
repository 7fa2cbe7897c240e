"""The Jinja2 environments that templates run in: an immutable sandbox with nothing to load.

What the sandbox does not bound (time, memory) is bounded by the process around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from types import CodeType
from typing import Any

import msgspec
from jinja2 import Template, TemplateSyntaxError, UndefinedError, nodes
from jinja2.runtime import StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from outbox.render.wire import Problem

_LOADING = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from … import",
    nodes.Extends: "extends",
}


class VariableMissing(UndefinedError):
    """A template used what the context lacks; `name` is None where it wasn't looked up by name."""

    def __init__(self, name: str | None, top_level: bool, message: str | None = None) -> None:
        self.name = name
        self.top_level = top_level
        super().__init__(message)


class _Missing(StrictUndefined):
    """Jinja's strict undefined, but its error can be asked what was missing."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: Callable[..., Exception] = UndefinedError,
    ) -> None:
        if exc is UndefinedError:
            # The name may be an index: `items[5]`.
            exc = partial(VariableMissing, None if name is None else str(name), obj is missing)
        super().__init__(hint, obj, name, exc)  # type: ignore[arg-type]  # any maker will do


def _plain_json(value: object) -> object:
    if isinstance(value, Decimal):
        return Decimal(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Undefined):
        str(value)  # raises what it lacks
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


_JSON = msgspec.json.Encoder(decimal_format="number", order="sorted", enc_hook=_plain_json)


def _dump_json(value: object, indent: int | None = None) -> str:
    encoded = _JSON.encode(value)
    return (encoded if indent is None else msgspec.json.format(encoded, indent=indent)).decode()


class Sandbox(ImmutableSandboxedEnvironment):
    """One environment: for HTML with autoescape, for everything else without."""

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(autoescape=autoescape, undefined=_Missing, loader=None, cache_size=0)
        del self.globals["lipsum"]
        self.policies["json.dumps_function"] = _dump_json
        self.policies["json.dumps_kwargs"] = {}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Prefer the data's own key: `order.items` is the list of items, not a dict's method."""
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def compile_part(self, part: str, source: str) -> tuple[Template | None, tuple[Problem, ...]]:
        """Return the template, or else all that can be said against it."""
        try:
            tree = self.parse(source)
            problems = tuple(self._refusals(part, tree))
            if problems:
                return None, problems
            code: CodeType = self.compile(tree, name=part, filename=f"<{part}>")
        except TemplateSyntaxError as error:
            return None, (Problem(part, error.lineno, error.message or "syntax error"),)
        except RecursionError:
            return None, (Problem(part, None, "it is nested too deeply"),)
        except SyntaxError as error:
            # Python's own limits, such as 20 blocks within each other.
            return None, (Problem(part, None, error.msg),)
        except MemoryError:
            raise
        except Exception as error:
            # Such as a number literal with more digits than Python reads.
            return None, (Problem(part, None, f"it can't be compiled ({type(error).__name__})"),)
        return Template.from_code(self, code, self.globals), ()

    def _refusals(self, part: str, tree: nodes.Template) -> Iterator[Problem]:
        """Find what Jinja would only notice when it runs, or not before a condition holds."""
        for kind, word in _LOADING.items():
            for node in tree.find_all(kind):
                yield Problem(part, node.lineno, f"{word} is not available: nothing can be loaded")
        for call in tree.find_all(nodes.Filter):
            if call.name not in self.filters:
                yield Problem(part, call.lineno, f"there is no filter named {call.name!r}")
        for test in tree.find_all(nodes.Test):
            if test.name not in self.tests:
                yield Problem(part, test.lineno, f"there is no test named {test.name!r}")


def dotted(node: nodes.Node) -> str | None:
    """Return `user.address.city` for a chain of lookups by constants that starts at a name."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        key: object = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        key = node.arg.value
    else:
        return None
    base = dotted(node.node)
    return None if base is None else f"{base}.{key}"


def lookups(tree: nodes.Template) -> Iterator[tuple[str, int]]:
    """Yield each dotted chain of a template, inner ones too, with its line."""
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        path = dotted(node)
        if path is not None:
            yield path, node.lineno
