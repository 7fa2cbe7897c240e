r"""The audit queries, for psql as they are and for programs by `load`.

A file is SQL that psql runs with `-f`, one statement, in this form (docs/audit.md):

    -- What it answers, in a sentence or two.
    -- param NAME TYPE 'DEFAULT' what it means
    \if :{?NAME} \else \set NAME 'DEFAULT' \endif
    select … where x = :'NAME'::TYPE;

Lines that begin with a backslash are psql's alone; a `:'NAME'` becomes a bound parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from uuid import UUID

INT_MAX = 2**31 - 1

_PARAMETER = re.compile(
    r"-- param (?P<name>\w+) (?P<type>\w+) '(?P<default>[^']*)' (?P<meaning>.+)"
)
_PLACE = re.compile(r":'(\w+)'")


@dataclass(frozen=True)
class Parameter:
    """One parameter. `type` is Postgres' name; `default` is text, as all values are."""

    name: str
    type: str
    default: str
    meaning: str

    def check(self, text: str) -> None:
        """Raise ValueError if the text is no value of the type."""
        try:
            if self.type == "uuid":
                UUID(text)
            elif self.type == "int" and not -INT_MAX <= int(text) <= INT_MAX:
                raise ValueError(text)
        except ValueError:
            what = "a UUID" if self.type == "uuid" else f"a whole number up to {INT_MAX:,}"
            raise ValueError(f"{self.name} must be {what}, not {text[:80]!r}") from None


@dataclass(frozen=True)
class AuditQuery:
    """One query. `statement` takes psycopg's named parameters, all of them as text."""

    name: str
    answers: str
    parameters: tuple[Parameter, ...]
    statement: str

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return what to bind: `given` over the defaults.

        Raises ValueError for a name that there is not, and a value that is none of its type.
        """
        unknown = sorted(given.keys() - {parameter.name for parameter in self.parameters})
        if unknown:
            known = ", ".join(parameter.name for parameter in self.parameters)
            raise ValueError(f"{self.name} has no parameter {unknown[0]!r}; it has: {known}")
        for parameter in self.parameters:
            parameter.check(given.get(parameter.name, parameter.default))
        return {p.name: given.get(p.name, p.default) for p in self.parameters}


def names() -> list[str]:
    """Return the names of all audit queries."""
    found = (path.name for path in files(__name__).iterdir())
    return sorted(name.removesuffix(".sql") for name in found if name.endswith(".sql"))


@cache
def load(name: str) -> AuditQuery:
    """Return the query of that name. Raises LookupError when there is none."""
    if name not in names():
        raise LookupError(f"there is no audit query {name!r}; there are: {', '.join(names())}")
    answers: list[str] = []
    parameters: list[Parameter] = []
    body: list[str] = []
    for line in files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8").splitlines():
        match = _PARAMETER.fullmatch(line)
        if match is not None:
            parameters.append(Parameter(**match.groupdict()))
        elif line.startswith("--") and not parameters:
            answers.append(line.removeprefix("--").strip())
        elif not line.startswith("\\"):
            body.append(line)
    statement = "\n".join(body).strip().removesuffix(";")
    statement = _PLACE.sub(r"%(\1)s", statement.replace("%", "%%"))
    return AuditQuery(name, " ".join(answers), tuple(parameters), statement)
