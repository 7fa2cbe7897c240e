"""The provider `gateway`: SMS through any HTTP API that takes a POST, its body a template.

The body is Jinja, cut down to what can neither run long nor grow: names, `if`, comparisons and
three filters, without loops, calls and arithmetic. So it may be a tenant's, and is rendered here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote

import msgspec
from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, nodes

from outbox.channels.api_client import ApiClient, by_status, no_answer, said_by
from outbox.channels.captured import sent_by
from outbox.channels.http_client import HttpFailure
from outbox.channels.provider_config import ProviderConfig
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import Delivered, Outcome

BODY_CHARS_MAX = 4_000
DEFAULT_BODY = '{"to": {{ to | json }}, "from": {{ from | json }}, "text": {{ text | json }}}'

NAMES = frozenset({"to", "from", "text", "job_id", "tenant_id", "encoding", "segments"})
"""What a body can say."""

_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Filter,
    nodes.If,
    nodes.Compare,
    nodes.Operand,
    nodes.Not,
    nodes.And,
    nodes.Or,
)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _url(value: object) -> str:
    return quote(str(value), safe="")


def _xml(value: object) -> str:
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;")


FILTERS: dict[str, Callable[[object], str]] = {"json": _json, "url": _url, "xml": _xml}
"""How a value gets into JSON, a form, or XML; one of them is always needed."""


class SmsGateway:
    """Options: `from`, `body` (by default JSON with `to`, `from` and `text`).

    A login with a user is sent as Basic, a secret alone as a Bearer token.
    """

    def __init__(self, config: ProviderConfig, client: ApiClient) -> None:
        self._client = client
        self._url = config.base_url
        self._sender = config.options.get("from", "")
        body = config.options.get("body") or DEFAULT_BODY
        self._render = compile_body(body)
        self._headers = {"Content-Type": _content_type(body)}
        if config.username:
            login = b64encode(f"{config.username}:{config.secret}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"
        elif config.secret:
            self._headers["Authorization"] = f"Bearer {config.secret}"

    async def send(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send one SMS. The job's id goes along, so that a gateway can drop a repetition."""
        sent = sent_by("gateway", message)
        body = self._render(
            {
                "to": message.to or "",
                "from": self._sender,
                "text": message.text or "",
                "job_id": str(message.key),
                "tenant_id": message.tenant_id,
                "encoding": message.headers.get("sms-encoding", ""),
                "segments": int(message.headers.get("sms-segments", "0")),
            }
        )
        answer = await self._client.post(
            self._url,
            headers={**self._headers, "Idempotency-Key": str(message.key)},
            body=body.encode("utf-8", "replace"),
            timeout_s=timeout_s,
        )
        if isinstance(answer, HttpFailure):
            return no_answer(answer, sent)
        if 200 <= answer.status <= 299:
            return Delivered(provider_message_id=_message_id(answer.body), sent=sent)
        return by_status(answer, said_by(answer), attempt=message.attempt, sent=sent)


def compile_body(text: str) -> Callable[[dict[str, object]], str]:
    """Return what renders a body. Raises ConfigError where it can do more than a body needs."""
    if len(text) > BODY_CHARS_MAX:
        raise ConfigError(f"OUTBOX_SMS_BODY is longer than {BODY_CHARS_MAX} characters")
    environment = Environment(undefined=StrictUndefined, autoescape=False)
    environment.filters = dict(FILTERS)
    environment.globals = {}
    try:
        tree = environment.parse(text)
        for node in tree.find_all(nodes.Node):
            _check(node)
        for output in tree.find_all(nodes.Output):
            _check_output(output)
        return environment.from_string(tree).render
    except TemplateSyntaxError as error:
        raise ConfigError(f"OUTBOX_SMS_BODY, line {error.lineno}: {error.message}") from None


def _check(node: nodes.Node) -> None:
    known = ", ".join(sorted(NAMES))
    match node:
        case nodes.Name() if node.name not in NAMES:
            raise ConfigError(f"OUTBOX_SMS_BODY: there is no {node.name!r}, but {known}")
        case nodes.Filter() if node.name not in FILTERS or node.args or node.kwargs:
            raise ConfigError(f"OUTBOX_SMS_BODY: there are the filters {', '.join(FILTERS)} only")
        case _ if not isinstance(node, _NODES):
            kind = type(node).__name__
            raise ConfigError(f"OUTBOX_SMS_BODY: {kind} is not allowed in a body")


def _check_output(output: nodes.Output) -> None:
    """Refuse what is inserted without a filter: it could leave its place in the body."""
    for part in output.nodes:
        if not isinstance(part, nodes.TemplateData | nodes.Filter):
            names = ", ".join(FILTERS)
            raise ConfigError(f"OUTBOX_SMS_BODY: each value needs one of the filters {names}")


def _content_type(body: str) -> str:
    match body.lstrip()[:1]:
        case "{" | "[" if not body.lstrip().startswith(("{{", "{%")):
            return "application/json"
        case "<":
            return "application/xml"
        case _:
            return "application/x-www-form-urlencoded"


def _message_id(body: bytes) -> str | None:
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(told, dict):
        return None
    for name in ("id", "message_id", "messageId"):
        if isinstance(told.get(name), str | int):
            return str(told[name])
    return None
