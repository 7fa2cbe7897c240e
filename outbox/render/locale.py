"""Which templates to try for a message, from the most particular language to the service's own.

Tags are written the way BCP 47 recommends (`pt-BR`, `zh-Hant-TW`), whatever a producer sends
(`PT_br`, `ru_RU.UTF-8`); templates have to be stored under `normalise_locale` of their tag.
Any well-formed tag is taken, known to a registry or not: producers use `kz`, which is none.
"""

from __future__ import annotations

import re

TAG_CHARS_MAX = 64

_TAG = re.compile(r"[a-z]{2,8}(?:-[a-z0-9]{1,8})*")


def normalise_locale(tag: str | None) -> str | None:
    """Return `tag` in BCP 47's usual case with hyphens, or None where it is no language tag.

    An encoding or modifier as POSIX writes it (`.UTF-8`, `@euro`) is dropped.
    """
    if tag is None or len(tag) > TAG_CHARS_MAX:
        return None
    plain = re.split(r"[.@]", tag.strip(), maxsplit=1)[0].replace("_", "-").lower()
    if _TAG.fullmatch(plain) is None:
        return None
    language, *rest = plain.split("-")
    subtags = [language]
    for subtag in rest:
        if len(subtags[-1]) == 1:
            subtags.append(subtag)  # what follows a singleton (x-, u-) stays in lower case
        elif len(subtag) == 2:
            subtags.append(subtag.upper())
        elif len(subtag) == 4 and subtag.isalpha():
            subtags.append(subtag.capitalize())
        else:
            subtags.append(subtag)
    return "-".join(subtags)


def locale_chain(
    *, wanted: str | None, recipient: str | None, tenant: str | None, service: str
) -> tuple[str, ...]:
    """Return the locales to look a template up in, in order, without duplicates.

    `wanted` is the job's own; only where it is missing, or no language tag, does the recipient's
    take its place. Then come the tenant's default and the service's, each followed by what it
    is a variant of (`pt-BR`, then `pt`). What is no language tag is passed over.
    """
    first = normalise_locale(wanted) or normalise_locale(recipient)
    chain: dict[str, None] = {}
    for tag in (first, normalise_locale(tenant), normalise_locale(service)):
        subtags = tag.split("-") if tag else []
        while subtags:
            chain.setdefault("-".join(subtags))
            subtags.pop()
            # RFC 4647, 3.4: a singleton means nothing without what it introduces.
            if subtags and len(subtags[-1]) == 1:
                subtags.pop()
    return tuple(chain)
