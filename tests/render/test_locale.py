"""Which templates are tried, in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.render import locale_chain, normalise_locale


@pytest.mark.parametrize(
    ("wanted", "recipient", "tenant", "chain"),
    [
        ("pt-BR", None, "ru", ("pt-BR", "pt", "ru", "en")),
        ("PT_br", None, "ru-KZ", ("pt-BR", "pt", "ru-KZ", "ru", "en")),
        ("kz", "ru", None, ("kz", "en")),
        (None, "ru_RU.UTF-8", "de", ("ru-RU", "ru", "de", "en")),
        ("en", None, "en-GB", ("en", "en-GB")),
        ("zh-hant-tw", None, None, ("zh-Hant-TW", "zh-Hant", "zh", "en")),
        ("de-x-Old", None, None, ("de-x-old", "de", "en")),
        ("../etc", "ru", None, ("ru", "en")),
        ("", "", "", ("en",)),
        (None, None, "not a tag", ("en",)),
        ("x" * 1000, None, None, ("en",)),
    ],
)
def test_a_locale_falls_back_to_its_base_then_the_tenant_then_the_service(
    wanted: str | None, recipient: str | None, tenant: str | None, chain: tuple[str, ...]
) -> None:
    assert locale_chain(wanted=wanted, recipient=recipient, tenant=tenant, service="en") == chain


@given(st.none() | st.text(), st.none() | st.text(), st.none() | st.text())
def test_no_tag_does_harm(wanted: str | None, recipient: str | None, tenant: str | None) -> None:
    chain = locale_chain(wanted=wanted, recipient=recipient, tenant=tenant, service="en")
    assert "en" in chain
    assert len(set(chain)) == len(chain)
    assert all(normalise_locale(tag) == tag for tag in chain)
