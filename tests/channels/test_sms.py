"""SMS: numbers, segments, Twilio's API and its codes, and gateways with a body of their own."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import phonenumbers
import pytest

from outbox.channels.provider_errors import TWILIO_TABLE
from outbox.channels.sms import SmsChannel
from outbox.channels.sms_gateway import compile_body
from outbox.channels.sms_text import Segments, count_segments
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, SinkRow
from tests.channels.api_server import DROP, HANG, ApiServer, Call, Reply, api_server
from tests.channels.messages import CREATED_AT, KEY
from tests.channels.outcomes import told

ACCOUNT, TOKEN = "AC0123456789", "tw-secret-token"
LOGIN = "Basic " + b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


def sms(**changes: Any) -> Message:
    given: dict[str, Any] = {
        "key": KEY,
        "tenant_id": "default",
        "queue": "sms",
        "channel": "sms",
        "to": "+77011234567",
        "text": "Ваш код 4711",
        "created_at": CREATED_AT,
    }
    return Message(**{**given, **changes})


def speak_twilio(call: Call) -> Reply:
    """Twilio's Messages resource, as far as a sender meets it."""
    if call.path != f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json":
        return Reply(404, refusal(20404, "The requested resource was not found", 404))
    if call.headers["Authorization"] != LOGIN:
        return Reply(401, refusal(20003, "Authenticate", 401))
    form = call.form
    number = phonenumbers.parse(form["To"]) if form["To"].startswith("+") else None
    if number is None or not phonenumbers.is_possible_number(number):
        return Reply(400, refusal(21211, f"Invalid 'To' Phone Number: {form['To']}", 400))
    if len(form["Body"]) > 1_600:
        return Reply(400, refusal(21617, "The concatenated message body exceeds 1600", 400))
    if "From" not in form and "MessagingServiceSid" not in form:
        return Reply(400, refusal(21603, "A 'From' phone number is required", 400))
    sent = {"sid": "SM" + "1" * 32, "status": "queued", "to": form["To"], "error_code": None}
    return Reply(201, sent)


def refusal(code: int, message: str, status: int) -> dict[str, object]:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more, "status": status}


@asynccontextmanager
async def twilio(**settings: str) -> AsyncIterator[tuple[ApiServer, SmsChannel]]:
    async with api_server(speak_twilio) as server:
        given = {
            "SMS_URL": f"twilio+http://{ACCOUNT}:{TOKEN}@{server.place}",
            "SMS_FROM": "+15005550006",
            **settings,
        }
        async with SmsChannel(given) as channel:
            yield server, channel


async def answered(reply: Reply | str, **changes: Any) -> Outcome:
    async with twilio() as (server, channel):
        server.replies.append(reply)
        return await channel.deliver(sms(**changes), timeout_s=0.5 if reply == HANG else 5)


async def test_an_sms_reaches_twilio_as_its_form() -> None:
    async with twilio() as (server, channel):
        outcome = await channel.deliver(sms(), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == "SM" + "1" * 32
    assert outcome.sent is not None
    assert (outcome.sent.provider, outcome.sent.recipient) == ("twilio", "+77011234567")
    (call,) = server.calls
    assert call.form == {"To": "+77011234567", "From": "+15005550006", "Body": "Ваш код 4711"}


async def test_a_messaging_service_is_named_as_one() -> None:
    service = "MG" + "0" * 32
    async with twilio(SMS_FROM=service) as (server, channel):
        assert told(await channel.deliver(sms(), timeout_s=5)) == "done"
    assert server.calls[0].form["MessagingServiceSid"] == service
    assert "From" not in server.calls[0].form


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((20429, 20503, 21730, 30001), "T provider"),
        ((20500,), "ambiguous"),
        ((20003, 21601, 21606, 30002, 30034), "C lane"),
        ((21408, 21608, 30007, 30010), "C job"),
        ((21211, 21612, 21614, 30005, 30006), "P S"),
        ((21610,), "P S"),
        ((30004, 21617), "P"),
        ((30003, 30008), "P after 3"),
    ],
)
async def test_each_row_of_twilio_s_table(codes: tuple[int, ...], expected: str) -> None:
    for code in codes:
        outcome = await answered(Reply(400, refusal(code, "no", 400)))
        assert told(outcome) == expected, code
        assert getattr(outcome, "code", None) == f"twilio.{code}"


def test_every_code_of_the_table_is_in_the_test_above() -> None:
    (mark,) = [
        mark
        for mark in getattr(test_each_row_of_twilio_s_table, "pytestmark")  # noqa: B009
        if mark.name == "parametrize"
    ]
    tested = {str(code) for codes, _ in mark.args[1] for code in codes}
    assert tested == {code for row in TWILIO_TABLE for code in row.codes}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(401, b"no"), "C lane"),
        (Reply(403, {}), "C lane"),
        (Reply(302, b"", {"Location": "https://example.com/"}), "C lane"),
        (Reply(404, {}), "T"),
        (Reply(429, {}, {"Retry-After": "7"}), "T destination"),
        (Reply(500, b"<html>oops</html>"), "T"),
        (Reply(503, {}), "T"),
        (Reply(400, {"code": 99999, "message": "new"}), "P after 3"),
        (Reply(201, {"sid": "SM1", "error_code": 30006, "error_message": "Landline"}), "P S"),
        (Reply(201, {"sid": "SM1", "error_code": 99999, "error_message": "new"}), "P"),
        (HANG, "ambiguous"),
        (DROP, "ambiguous"),
    ],
)
async def test_answers_without_a_code_that_the_table_knows(
    reply: Reply | str, expected: str
) -> None:
    assert told(await answered(reply)) == expected


async def test_a_pause_that_twilio_asks_for_is_for_the_whole_provider() -> None:
    outcome = await answered(
        Reply(429, refusal(20429, "Too Many Requests", 429), {"Retry-After": "7"})
    )
    assert isinstance(outcome, Retryable)
    assert (outcome.scope, outcome.retry_after_s) == ("provider", 7.0)


async def test_a_wrong_login_holds_the_lane_and_is_not_told() -> None:
    async with twilio() as (server, _):
        url = f"twilio+http://{ACCOUNT}:wrong-secret@{server.place}"
        async with SmsChannel({"SMS_URL": url, "SMS_FROM": "+15005550006"}) as channel:
            outcome = await channel.deliver(sms(), timeout_s=5)
    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("twilio.20003", "lane")
    assert "wrong-secret" not in outcome.reason


async def test_a_provider_that_is_away_is_temporary_and_nothing_was_sent() -> None:
    async with twilio() as (server, channel):
        pass
    async with SmsChannel(
        {"SMS_URL": f"twilio+http://a:b@{server.place}", "SMS_FROM": "x"}
    ) as channel:
        assert told(await channel.deliver(sms(), timeout_s=5)) == "T"


# -- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "region", "expected"),
    [
        ("+7 701 123-45-67", None, "+77011234567"),
        ("8 (701) 123 45 67", "KZ", "+77011234567"),
        ("87011234567", "kz", "+77011234567"),
        ("0171 1234567", "DE", "+491711234567"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("+44 20 7946 0958", "KZ", "+442079460958"),
    ],
)
async def test_a_number_becomes_e164_by_the_region(
    written: str, region: str | None, expected: str
) -> None:
    settings = {"SMS_REGION": region} if region else {}
    async with twilio(**settings) as (server, channel):
        assert told(await channel.deliver(sms(to=written), timeout_s=5)) == "done"
    number = server.calls[0].form["To"]
    assert number == expected
    again = phonenumbers.parse(number)
    assert phonenumbers.format_number(again, phonenumbers.PhoneNumberFormat.E164) == number


@pytest.mark.parametrize("written", ["87011234567", "abc", "+7", "+999123", "112"])
async def test_what_is_no_number_is_rejected_before_anybody_is_asked(written: str) -> None:
    async with twilio() as (server, channel):
        outcome = await channel.deliver(sms(to=written), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.suppress) == ("recipient.address", False)
    assert not server.calls


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": None}, "recipient.no_address"),
        ({"text": None}, "sms.empty"),
        ({"text": " \n"}, "sms.empty"),
        ({"text": None, "html": "<p>hi</p>"}, "sms.empty"),
        ({"text": "ы" * 671}, "sms.too_long"),
    ],
)
async def test_what_no_sms_can_carry_is_permanent(changes: dict[str, Any], code: str) -> None:
    async with twilio() as (server, channel):
        outcome = await channel.deliver(sms(**changes), timeout_s=5)
    assert isinstance(outcome, Rejected)
    assert outcome.code == code
    assert not server.calls


# -- segments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Segments("gsm7", 0, 0)),
        ("a" * 160, Segments("gsm7", 160, 1)),
        ("a" * 161, Segments("gsm7", 161, 2)),
        ("a" * 306, Segments("gsm7", 306, 2)),
        ("a" * 307, Segments("gsm7", 307, 3)),
        ("€" * 80, Segments("gsm7", 160, 1)),
        ("€" * 81, Segments("gsm7", 162, 2)),
        # An escape and its character stay together: a septet of the first part is lost.
        ("a" * 152 + "€" + "a" * 10, Segments("gsm7", 164, 2)),
        ("a" * 152 + "€" + "a" * 152, Segments("gsm7", 306, 3)),
        ("ы" * 70, Segments("ucs2", 70, 1)),
        ("ы" * 71, Segments("ucs2", 71, 2)),
        ("ы" * 134, Segments("ucs2", 134, 2)),
        ("ы" * 135, Segments("ucs2", 135, 3)),
        ("😀" * 35, Segments("ucs2", 70, 1)),
        ("😀" * 36, Segments("ucs2", 72, 2)),
        ("😀" * 67, Segments("ucs2", 134, 3)),
        ("`", Segments("ucs2", 1, 1)),
        ("Straße £5 [Ω]", Segments("gsm7", 15, 1)),
    ],
)
def test_segments_are_counted_as_networks_do(text: str, expected: Segments) -> None:
    assert count_segments(text) == expected


# -- gateways --------------------------------------------------------------------------------


def speak_gateway(call: Call) -> Reply:
    return Reply(200, {"id": 42})


async def through_gateway(login: str = "", message: Message | None = None, **body: str) -> Call:
    async with api_server(speak_gateway) as server:
        url = f"gateway+http://{login}{server.place}/send?account=7"
        given = {"SMS_URL": url, "SMS_FROM": "CINEMA", **body}
        async with SmsChannel(given) as channel:
            outcome = await channel.deliver(message or sms(), timeout_s=5)
    assert isinstance(outcome, Delivered)
    assert outcome.provider_message_id == "42"
    (call,) = server.calls
    assert call.path == "/send?account=7"
    assert call.headers["Idempotency-Key"] == str(KEY)
    return call


async def test_a_gateway_gets_json_by_default() -> None:
    call = await through_gateway(message=sms(text='say "hi"\n\\'))
    assert call.json == {"to": "+77011234567", "from": "CINEMA", "text": 'say "hi"\n\\'}
    assert call.headers["Content-Type"] == "application/json"
    assert "Authorization" not in call.headers


async def test_a_gateway_s_body_is_what_its_template_says() -> None:
    body = "phone={{ to | url }}&mes={{ text | url }}&n={{ segments | url }}" + (
        "{% if encoding == 'ucs2' %}&charset=ucs2{% endif %}"
    )
    call = await through_gateway("shop:pass%20word@", SMS_BODY=body, message=sms(text="a&b=ы"))
    assert call.form == {"phone": "+77011234567", "mes": "a&b=ы", "n": "1", "charset": "ucs2"}
    assert call.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert call.headers["Authorization"] == "Basic " + b64encode(b"shop:pass word").decode()


async def test_a_gateway_s_token_is_sent_as_a_bearer_s() -> None:
    body = "<sms to={{ '\"' | xml }}>{{ text | xml }}</sms>"
    call = await through_gateway(":tok%2Fen@", SMS_BODY=body, message=sms(text="<&>"))
    assert call.headers["Authorization"] == "Bearer tok/en"
    assert call.headers["Content-Type"] == "application/xml"
    assert call.body.decode() == "<sms to=&quot;>&lt;&amp;&gt;</sms>"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(204, b""), "done"),
        (Reply(401, {}), "C lane"),
        (Reply(422, {}), "P after 3"),
        (Reply(410, {}), "P"),
        (Reply(429, {}, {"Retry-After": "7"}), "T destination"),
        (Reply(502, {}), "T"),
        (DROP, "ambiguous"),
    ],
)
async def test_a_gateway_s_answers_are_judged_as_http(reply: Reply | str, expected: str) -> None:
    async with api_server(speak_gateway) as server:
        server.replies.append(reply)
        async with SmsChannel({"SMS_URL": f"gateway+http://{server.place}/send"}) as channel:
            assert told(await channel.deliver(sms(), timeout_s=5)) == expected


@pytest.mark.parametrize(
    "body",
    [
        "{{ text }}",
        "{{ text | json }",
        "{{ secret | json }}",
        "{{ text | upper }}",
        "{% for c in text %}{{ c | json }}{% endfor %}",
        "{{ (text * 9999999) | json }}",
        "{{ ('%0999999999d' % 1) | json }}",
        "{{ text.__class__ | json }}",
        "{{ text['x'] | json }}",
        "{{ cycler('a') | json }}",
        "{% set x = text %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{{ (text ~ text) | json }}",
        "{{ range(9) | json }}",
        "x" * 5_000,
    ],
)
def test_a_body_that_could_do_more_than_a_body_needs_is_refused(body: str) -> None:
    with pytest.raises(ConfigError, match="OUTBOX_SMS_BODY"):
        compile_body(body)


# -- settings --------------------------------------------------------------------------------


async def test_without_a_provider_sms_are_held() -> None:
    async with SmsChannel({}) as channel:
        outcome = await channel.deliver(sms(), timeout_s=5)
    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.scope) == ("provider.missing", "lane")
    assert "OUTBOX_SMS_URL" in outcome.reason


async def test_the_sandbox_shows_number_encoding_and_segments() -> None:
    async with SmsChannel({"MODE": "sandbox", "SMS_REGION": "KZ"}) as channel:
        outcome = await channel.deliver(sms(to="8 701 123 45 67"), timeout_s=5)
    assert isinstance(outcome, Delivered)
    (row,) = outcome.effects
    assert isinstance(row, SinkRow)
    assert (row.channel, row.recipient, row.body) == ("sms", "+77011234567", "Ваш код 4711")
    kept = json.loads(row.headers_json)
    assert (kept["sms-encoding"], kept["sms-segments"]) == ("ucs2", "1")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SMS_REGION": "XX"}, "OUTBOX_SMS_REGION"),
        ({"SMS_URL": "twilio://a:s3cret@api.twilio.com"}, "OUTBOX_SMS_FROM"),
        (
            {"SMS_URL": "twilio://:s3cret@api.twilio.com", "SMS_FROM": "x"},
            "OUTBOX_SMS_URL must be",
        ),
        ({"SMS_URL": "smpp://a:s3cret@host"}, "OUTBOX_SMS_URL must be"),
        ({"SMS_URL": "gateway+ftp://host/"}, "OUTBOX_SMS_URL must be"),
        ({"SMS_URL": "gateway://h/", "SMS_BODY": "{{ text }}"}, "OUTBOX_SMS_BODY"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_the_start(
    settings: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        SmsChannel(settings)
    assert "s3cret" not in str(refusal.value)
