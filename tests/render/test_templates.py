"""What templates can say, and what they are told when they can't."""

from __future__ import annotations

import json
import socket
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from outbox.render import TemplateSource, inline_source, join_context
from outbox.render.number import Number
from tests.render.desk import OUTPUT_BYTES_MAX, Desk

PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


def test_each_part_that_a_template_has_is_rendered(desk: Desk) -> None:
    source = TemplateSource(subject="Привет, {{ name }}", text="T {{ name }}", html="<b>H</b>")
    rendered = desk.render(source, '{"name": "Нуржан"}'.encode())
    assert (rendered.subject, rendered.text, rendered.html) == (
        "Привет, Нуржан",
        "T Нуржан",
        "<b>H</b>",
    )
    assert desk.render(TemplateSource(text="x")).html is None


@given(value=PLAIN_TEXT)
def test_any_text_comes_out_as_it_went_in_and_escaped_in_html_only(value: str) -> None:
    source = TemplateSource(text="[{{ v }}]", html="[{{ v }}]")
    rendered = Desk().render(source, json.dumps({"v": value}).encode())
    assert rendered.text == f"[{value}]"
    if "<style" not in value.lower():
        assert rendered.html == f"[{escape(value)}]"


def test_a_subject_is_one_line_without_control_characters(desk: Desk) -> None:
    source = TemplateSource(subject="{{ s }}")
    context = json.dumps({"s": " Sale \r\nBcc: a@b.example\u2028\n x\x07y\t1 "}).encode()
    assert desk.render(source, context).subject == "Sale Bcc: a@b.example x\ufffdy\t1"


def test_what_postgres_cannot_store_is_replaced(desk: Desk) -> None:
    assert desk.text(r"{{ 'a\x00b' }}{{ '\ud800' }}") == "a\ufffdb\ufffd"
    assert desk.text(r"{{ '\ud83d\ude00' }}") == "😀"
    assert desk.render(TemplateSource(subject=r"{{ '\ud800' }}")).subject == "\ufffd"


def test_the_context_is_data_with_user_meta_and_job_over_it(desk: Desk) -> None:
    context = join_context(
        b' {"name": "Ann", "job": "painter"} ', user=b'{"tz": "UTC"}', job=b'{"attempt": 2}'
    )
    assert desk.text("{{ name }} {{ user.tz }} {{ job.attempt }}", context) == "Ann UTC 2"
    assert join_context(b"{}", meta=b"{}") == b'{"meta":{}}'
    assert desk.failure("x", join_context(b"[1]", meta=b"{}")).code == "template.data"


def test_the_locale_is_a_variable_unless_the_data_has_one(desk: Desk) -> None:
    source = TemplateSource(text="{{ locale }}")
    assert desk.render(source, locale="ru").text == "ru"
    assert desk.render(source, b'{"locale": "mine"}', locale="ru").text == "mine"


def test_a_key_of_the_data_goes_before_a_method_of_the_same_name(desk: Desk) -> None:
    context = b'{"order": {"items": ["a", "b"], "count": 2}, "plain": {"k": 1}}'
    assert desk.text("{{ order.items|join('+') }} {{ order.count }}", context) == "a+b 2"
    assert desk.text("{% for k, v in plain.items() %}{{ k }}{{ v }}{% endfor %}", context) == "k1"


# -- numbers


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ n }}", "19.990000000000000001"),
        ("{{ big }}", "123456789012345678901234567890"),
        ("{{ e }}", "100000"),
        ("{{ price * 1.2 }} {{ 1.2 * price }}", "2.400 2.400"),
        ("{{ (price + 0.1) * 2 - 0.2 }}", "4.00"),
        ("{{ (1 / 2) * price }} {{ price / 4 }} {{ -price }}", "1.000 0.50 -2.00"),
        ("{{ price|round(1) }} {{ price|int }} {{ price|round|int }}", "2.0 2 2"),
        ("{{ '%.2f'|format(price) }} {{ '{:.1f}'.format(price) }}", "2.00 2.0"),
        ("{{ [price, price]|sum }} {{ price > 1.5 }}", "4.00 True"),
        ("{{ all|tojson }}", '{"e":1E+5,"n":[1.50,"<"]}'.replace("<", "\\u003c")),
        ("{{ all|tojson(1) }}", '{\n "e": 1E+5,\n "n": [\n  1.50,\n  "\\u003c"\n ]\n}'),
    ],
)
def test_numbers_keep_their_digits_and_can_be_reckoned_with(
    desk: Desk, template: str, said: str
) -> None:
    context = (
        b'{"n": 19.990000000000000001, "big": 123456789012345678901234567890, "e": 1e5,'
        b' "price": 2.00, "all": {"n": [1.50, "<"], "e": 1e5}}'
    )
    assert desk.text(template, context) == said


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None))
def test_a_number_is_written_with_the_value_it_has(value: Decimal) -> None:
    assert Decimal(str(Number(value))) == value


# -- failures


@pytest.mark.parametrize(
    ("template", "name", "line"),
    [
        ("{{ first_name }}", "first_name", 1),
        ("a\nb {{ user.emial }}", "user.emial", 2),
        ("{{ user.address.city.name }}", "user.address.city", 1),
        ("{{ user['emial'] }}", "user.emial", 1),
        ("{% for x in films %}\n{{ x.title }}{% endfor %}", "x.title", 2),
        ("{% if absent %}{% endif %}", "absent", 1),
        ("{{ absent|upper }}", "absent", 1),
        ("{{ {'a': absent}|tojson }}", "absent", 1),
        ("{% macro m(x) %}{{ x }}{% endmacro %}\n{{ m() }}", "x", 1),
    ],
)
def test_a_missing_variable_is_named_with_its_place(
    desk: Desk, template: str, name: str, line: int
) -> None:
    context = b'{"user": {"address": {}}, "films": [{"name": "x"}]}'
    failure = desk.failure(template, context)
    assert (failure.code, failure.kind) == ("template.variable", "permanent")
    assert failure.message == f"variable {name!r} is missing (text, line {line})"


def test_what_has_a_default_is_not_missing(desk: Desk) -> None:
    assert desk.text("{{ x|default('friend') }}{% if y is defined %}!{% endif %}") == "friend"


@pytest.mark.parametrize(
    ("template", "about"),
    [
        ("{% if x %}", "line 1"),
        ("\n{{ 1 +* 2 }}", "line 2"),
        ("{{ 1|nofilter }}", "'nofilter'"),
        ("{% if false %}{{ 1|nofilter }}{% endif %}", "'nofilter'"),
        ("{{ 1 is notest }}", "'notest'"),
        ("{% include 'x' %}", "include"),
        ("{% extends '/etc/passwd' %}", "extends"),
        ("{% import 'x' as y %}", "import"),
        ("{% from 'x' import y %}", "import"),
        ("{{ ''.__class__.__mro__ }}", "sandbox"),
        ("{{ self.__init__.__globals__ }}", "sandbox"),
        ("{{ cycler.__init__.__globals__.os }}", "sandbox"),
        ("{{ '{0.__class__}'.format(1) }}", "sandbox"),
        ("{{ ('{0.__class__.__init__}'|attr('format'))(1) }}", "sandbox"),
        ("{{ (x for x in [1]).gi_frame }}", "line 1"),
        ("{{ data.append(1) }}", "sandbox"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "deep"),
        ("{% for i in x %}" * 25 + "{% endfor %}" * 25, "nested"),
        ("{{ " + "9" * 5000 + " }}", "text"),
    ],
)
def test_a_broken_template_is_a_matter_of_configuration(
    desk: Desk, template: str, about: str
) -> None:
    failure = desk.failure(template, b'{"data": [], "x": 1}')
    assert (failure.code, failure.kind) == ("template.broken", "configuration")
    assert about in failure.message


@pytest.mark.parametrize(
    ("template", "context"),
    [
        ("x", b"[]"),
        ("x", b"{"),
        ("x", b"\xff"),
        ("x", b'{"a": "\\ud800"}'),
        ("x", b'{"a": NaN}'),
        ("x", b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        ("{{ secret + 1 }}", b'{"secret": "hunter2"}'),
        ("{{ 1 // (secret|int) }}", b'{"secret": "hunter2"}'),
        ("{{ secret.index('x') }}", b'{"secret": "hunter2"}'),
        ("{{ {'a': 1}[secret] }}", b'{"secret": "hunter2"}'),
        ("{{ [][0] }}{{ secret }}", b'{"secret": "hunter2"}'),
        ("{{ []|first }}", b'{"secret": "hunter2"}'),
    ],
)
def test_data_of_the_wrong_shape_is_permanent_and_never_quoted(
    desk: Desk, template: str, context: bytes
) -> None:
    failure = desk.failure(template, context)
    assert (failure.code, failure.kind) == ("template.data", "permanent")
    assert "hunter2" not in failure.message


def test_output_is_cut_off_where_it_grows_too_long(desk: Desk) -> None:
    for template in (
        "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 70000 }}",
        "{{ 'щ' * 40000 }}",
    ):
        assert desk.failure(template).code == "template.limit"
    half = "x" * (OUTPUT_BYTES_MAX // 2)
    desk.render(TemplateSource(text=half, html=half))
    assert desk.failure(TemplateSource(text=half, html=half + "x")).code == "template.limit"


@pytest.mark.parametrize(
    "template",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ range(10**9) }}",
        "{{ 'a' * 10**30 }}",
    ],
)
def test_depth_and_hugeness_break_a_limit(desk: Desk, template: str) -> None:
    assert desk.failure(template).code == "template.limit"


# -- for authors


def test_validation_lists_every_problem_with_part_and_line(desk: Desk) -> None:
    source = TemplateSource(
        subject="{{ x", text="\n{{ 1|nope }}\n{% include 'y' %}", html="{% for %}"
    )
    found = [(problem.part, problem.line) for problem in desk.validate(source).problems]
    assert found == [("subject", 1), ("text", 3), ("text", 2), ("html", 1)]
    assert desk.validate(TemplateSource(text="{{ fine }}")).problems == ()
    assert [problem.part for problem in desk.validate(TemplateSource()).problems] == ["template"]


def test_a_preview_lists_what_the_context_lacks_and_renders_what_it_can(desk: Desk) -> None:
    source = TemplateSource(
        subject="{{ name }}",
        text="{{ nick|default('-') }}{{ user.city }}{{ user.tz.upper() }}{{ range(1)|list }}"
        "{% set own = 1 %}{{ own }}{% for f in films %}{{ f.title }}{% endfor %}",
    )
    preview = desk.preview(source, b'{"name": "Ann", "user": {"tz": "utc"}}')
    assert preview.missing == ("films", "nick", "user.city")
    assert getattr(preview.result, "code", None) == "template.variable"
    fine = desk.preview(TemplateSource(text="{{ a|default(1) }}"), b"{}")
    assert fine.missing == ("a",)
    assert getattr(fine.result, "text", None) == "1"


@pytest.mark.parametrize(
    ("content", "is_html"),
    [
        ("Hello {{ name }}!", False),
        ("1 < 2 and 3 > 2, write to <ann@example.com> or <name>", False),
        ("{% if a < b %}x{% endif %}", False),
        ("<p>Hello</p>", True),
        ("Hello<br>you", True),
        ("<!DOCTYPE html><html></html>", True),
        ('<A HREF="https://example.com">x</A>', True),
    ],
)
def test_inline_content_is_html_where_it_has_an_element(content: str, is_html: bool) -> None:
    source = inline_source(content, "S")
    assert source.subject == "S"
    assert (source.html, source.text) == ((content, None) if is_html else (None, content))


# -- style sheets


def test_rules_are_inlined_and_media_queries_stay(desk: Desk) -> None:
    html = (
        "<html><head><style>p{color:red} @media(max-width:9px){p{margin:0}}</style></head>"
        "<body><p>{{ x }}</p></body></html>"
    )
    said = desk.render(TemplateSource(html=html), b'{"x": "&"}').html or ""
    assert '<p style="color: red;">&amp;</p>' in said
    assert "@media" in said


def test_html_without_a_style_element_is_left_as_it_is(desk: Desk) -> None:
    assert desk.render(TemplateSource(html="<p>x<td>y")).html == "<p>x<td>y"


def test_a_style_sheet_neither_reads_a_file_nor_opens_a_url(desk: Desk, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.css"
    sheet.write_text("p{color:rebeccapurple}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.css"
        places = [url, sheet.as_uri(), str(sheet)]
        links = "".join(f'<link rel="stylesheet" href="{place}">' for place in places)
        imports = "".join(f'@import url("{place}");' for place in places)
        html = f"<html><head>{links}<style>{imports} p{{margin:0}}</style></head><p>x</p></html>"
        said = desk.render(TemplateSource(html=html)).html or ""
        assert "margin: 0" in said
        assert "rebeccapurple" not in said
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_style_sheet_that_would_grow_past_the_limit_is_not_inlined(desk: Desk) -> None:
    html = "<style>p{" + "color:red;" * 2000 + "font-family:'" + "x" * 2000 + "'}</style>"
    html += "<p>x</p>" * 100
    assert desk.render(TemplateSource(html=html)).html == html
