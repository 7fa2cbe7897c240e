"""JSON Schema for a template's data. A fault names a place and a rule, never a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from itertools import islice
from typing import Protocol, cast

import msgspec
from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]  # no stubs
from jsonschema.validators import extend, validator_for  # type: ignore[import-untyped]  # no stubs
from referencing import Registry
from referencing.exceptions import Unresolvable

from outbox.render.number import Number

FAULTS_MAX = 3
_RULE_CHARS_MAX = 80

_DECODER = msgspec.json.Decoder(float_hook=Number)


class SchemaBroken(Exception):
    """The schema itself can't be used."""


class _Breach(Protocol):
    absolute_path: Iterable[str | int]
    validator: str
    validator_value: object
    instance: object


class Checker(Protocol):
    """A compiled schema."""

    def iter_errors(self, instance: object) -> Iterable[_Breach]:
        """Yield each breach."""
        ...


def compile_schema(schema_json: bytes) -> Checker:
    """Return a checker. Raises SchemaBroken. `$ref` reaches into the schema itself, no further.

    An unknown or absent `$schema` means draft 2020-12.
    """
    try:
        schema = _DECODER.decode(schema_json)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SchemaBroken("the schema is no JSON") from error
    if not isinstance(schema, dict | bool):
        raise SchemaBroken("a schema is an object or a boolean")
    draft = validator_for(schema, default=Draft202012Validator)
    try:
        draft.check_schema(schema)
    except SchemaError as error:
        place = pointer(error.absolute_path) or "the schema"
        raise SchemaBroken(f"{place}: {error.message[:200]}") from None
    # An empty registry has nothing to fetch with; the default one opens URLs.
    return cast(Checker, _with_exact_integers(draft)(schema, registry=Registry()))


def check(checker: Checker, data: Mapping[str, object]) -> str | None:
    """Return what is wrong with `data` (the first few faults), or None.

    Raises SchemaBroken for a `$ref` that leads nowhere: that shows only when it is used.
    """
    try:
        faults = [_describe(breach) for breach in islice(checker.iter_errors(data), FAULTS_MAX)]
    except Unresolvable as error:
        raise SchemaBroken(f"$ref {str(error.ref)[:200]!r} can't be resolved") from None
    return "; ".join(dict.fromkeys(faults)) or None


def pointer(path: Iterable[str | int]) -> str:
    """Return a path as a JSON pointer (RFC 6901); the whole document is the empty string."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def _describe(breach: _Breach) -> str:
    place = pointer(breach.absolute_path)
    rule, value = breach.validator, breach.validator_value
    if rule == "required" and isinstance(value, list) and isinstance(breach.instance, dict):
        absent = [place + pointer([name]) for name in value if name not in breach.instance]
        return f"{', '.join(absent)}: required"
    shown = ""
    if isinstance(value, str | int | Decimal | list):
        shown = " " + msgspec.json.encode(value, enc_hook=str).decode()
    if len(shown) > _RULE_CHARS_MAX:
        shown = ""
    return f"{place or 'data'}: breaks {rule}{shown}"


@cache
def _with_exact_integers(draft: type) -> type:
    """Let 1.0 be an integer, as the drafts say; jsonschema knows that of floats alone."""
    known = draft.TYPE_CHECKER  # type: ignore[attr-defined]  # a validator class, untyped
    return cast(
        type,
        extend(
            draft,
            type_checker=known.redefine(
                "integer",
                lambda checker, value: (
                    Draft202012Validator.TYPE_CHECKER.is_type(value, "integer")
                    or (isinstance(value, Decimal) and value == value.to_integral_value())
                ),
            ),
        ),
    )
