"""Numbers of the data, as templates see them: exact, and at home beside Python's floats."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

_PLAIN_EXPONENT_MAX = 40
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_UNARY = ("__neg__", "__pos__", "__abs__")


class Number(Decimal):
    """A JSON number with a fraction or an exponent, all its digits kept.

    A Decimal refuses arithmetic with a float, but `{{ price * 1.2 }}` is what people write, and
    1.2 there is a float: it takes part as the decimal number that it was written as.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """Write 1e5 as 100000, not 1E+5: people read it. Beyond 40 places it stays short."""
        text = Decimal.__str__(self)
        if "E" in text and abs(self.adjusted()) <= _PLAIN_EXPONENT_MAX:
            return format(Decimal(self), "f")
        return text

    def __round__(self, ndigits: int | None = None) -> Any:
        """Round half to even: to an int, or to a Number of so many places."""
        plain = Decimal(self)
        return round(plain) if ndigits is None else Number(round(plain, ndigits))


def _binary(name: str) -> Callable[[Number, object], object]:
    plain = cast(Callable[[Number, object], object], getattr(Decimal, name))

    def operate(self: Number, other: object) -> object:
        result = plain(self, Decimal(repr(other)) if isinstance(other, float) else other)
        return Number(result) if isinstance(result, Decimal) else result

    return operate


def _unary(name: str) -> Callable[[Number], object]:
    plain = cast(Callable[[Number], Decimal], getattr(Decimal, name))
    return lambda self: Number(plain(self))


for _name in _BINARY:
    setattr(Number, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(Number, f"__r{_name}__", _binary(f"__r{_name}__"))
for _name in _UNARY:
    setattr(Number, _name, _unary(_name))
