"""How times, numbers and personal data are written for eyes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from markupsafe import Markup

from outbox.store.sink import SinkRow

_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"']+@[\w.-]*\w|\+\d{7,15}\b")
MASK = "•••"
NOTHING = "\u2013"
PLAIN_MEMBERS = frozenset(
    "job_id created_at channel queue template_code locale send_after expires_at category "
    "max_attempts timeout_s endpoint priority event_type event_id campaign_id tenant_id "
    "dedup_window_s dedup_policy".split()
)
"""What a masked job shows as it is; everything else may be about a person."""


def count(number: float | None) -> str:
    """Return a number with thin spaces between thousands."""
    return NOTHING if number is None else f"{number:,.0f}".replace(",", "\u202f")


def about(figure: str, *, estimated: bool) -> str:
    """Return a figure with the sign of an estimate before it, where it is one."""
    return f"≈ {figure}" if estimated else figure


def rate(per_s: float) -> str:
    """Return a rate with as many digits as say something."""
    if per_s == 0:
        return "0"
    return f"{per_s:.2f}" if per_s < 1 else f"{per_s:.1f}" if per_s < 100 else count(per_s)


def span(seconds: float | None) -> str:
    """Return a length of time in its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        whole, left = divmod(left, size)
        if whole:
            parts.append(f"{whole} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def ago(at: datetime | None) -> Markup:
    """Return a time as it is read, with the exact one in its title."""
    if at is None:
        return Markup(NOTHING)
    distance_s = (datetime.now(UTC) - at).total_seconds()
    if abs(distance_s) < 1:
        text = "now"
    else:
        text = f"{span(distance_s)} ago" if distance_s > 0 else f"in {span(-distance_s)}"
    return _time(at, text)


def clock(at: datetime | None) -> Markup:
    """Return the time of day, with the date where it is another one."""
    if at is None:
        return Markup(NOTHING)
    is_today = at.astimezone(UTC).date() == datetime.now(UTC).date()
    return _time(at, at.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S"))


def _time(at: datetime, text: str) -> Markup:
    exact = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact, exact, text)


def masked(address: str | None) -> str:
    """Return an address that cannot be used: the beginning of it, and its domain's end."""
    if not address:
        return NOTHING
    name, at, domain = address.partition("@")
    if at:
        return f"{name[:1]}{MASK}@{domain[:1]}{MASK}.{domain.rpartition('.')[2]}"
    return f"{address[:2]}{MASK}{address[-2:]}" if len(address) > 6 else MASK


def unaddressed(text: str) -> str:
    """Return what a receiver said, with the addresses in it masked: mail's, and numbers."""
    return _ADDRESS.sub(lambda found: masked(found[0]), text)


def masked_json(value: object, name: str = "") -> object:
    """Return a job's JSON with everything that may be personal replaced."""
    if isinstance(value, Mapping):
        return {key: masked_json(each, str(key)) for key, each in value.items()}
    if name in PLAIN_MEMBERS or value is None or isinstance(value, bool):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [masked_json(each) for each in value]
    return MASK


def spark(values: Sequence[float]) -> Markup:
    """Return a small line of values, as SVG; what it says is in the figures beside it."""
    peak = max(values, default=0) or 1
    step = 96 / max(len(values) - 1, 1)
    points = " ".join(f"{i * step:.1f},{22 - 20 * v / peak:.1f}" for i, v in enumerate(values))
    return Markup(
        '<svg class="spark" viewBox="0 0 96 24" width="96" height="24" aria-hidden="true">'
        '<polyline points="{}"></polyline></svg>'
    ).format(points)


class _Typed(msgspec.Struct, frozen=True):
    """A webhook's body, as far as its title needs it."""

    type: str


def title_of(row: SinkRow) -> str:
    """Return what a message goes by: its subject, or for want of one, its event's type."""
    if row.subject:
        return row.subject
    if row.channel == "email":
        return "(no subject)"
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(row.body, type=_Typed).type
    return row.channel
