from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from outbox.channels.guard import (
    Blocked,
    Guard,
    LookupFailed,
    NameNotFound,
    is_public,
)
from outbox.channels.guard_allow import parse_allow
from outbox.errors import ConfigError

PUBLIC = "93.184.215.14"


class Resolver:
    """A resolver that answers from a list, the last answer for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def guard(allow: str = "", *answers: Sequence[str]) -> Guard:
    return Guard(parse_allow(allow), lookup=Resolver(*(answers or ([PUBLIC],))))


HOSTILE = [
    # This machine and its networks.
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/hook",
    "http://127.255.255.254/",
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.1.1/",
    "http://224.0.0.1/",
    "http://239.255.255.255/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://192.0.0.8/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://192.88.99.1/",
    # Metadata services.
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://168.63.129.16/",
    "http://[fd00:ec2::254]/",
    # IPv6, and IPv4 inside it.
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:93.184.215.14]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:53aa:64c::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[2606:2800::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://[100::1]/",
    # Odd spellings.
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f.1/",
    "http://127.0.0.0x1/",
    "http://127.0.0.1./",
    "http://1.2.3.4.5/",
    "http://93.184.215.014/",
    "http://999.1.1.1/",
    "http://0/",
    "http://0x/",
    "http://١٢٧.0.0.1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "http://[v1.a]/",
    "http://[::1/",
    # Credentials, schemes, ports.
    "http://user@example.com/",
    "http://user:pass@example.com/",
    "http://@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "//example.com/",
    "example.com",
    "",
    "http://",
    "http:///path",
    "http:/example.com",
    "http://example.com:0/",
    "http://example.com:22/",
    "http://example.com:25/",
    "http://example.com:5432/",
    "http://example.com:6379/",
    "http://example.com:11211/",
    "http://example.com:65536/",
    "http://example.com:-1/",
    "http://example.com:80:80/",
    # What two parsers might read in two ways.
    "http://example.com\\@127.0.0.1/",
    "http://example.com /",
    " http://example.com/",
    "http://example.com\t/",
    "http://exam\nple.com/",
    "http://example.com/\r\nHost: internal",
    "http://example.com\x00.evil/",
    "http://a%2fb/",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.1#@example.com/",
    "http://-example.com/",
    "http://exa_mple..com/",
    "http://example.com/" + "a" * 2_048,
    "http://\ud800.com/",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(Blocked):
        guard().check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?a=b#fragment",
        "http://example.com:8080/",
        "https://93.184.215.14/",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
        "https://münchen.de/ü",
        "https://a_b.example.com/",
        "https://example.com./",
        "https://example.com:8443/",
    ],
)
def test_an_ordinary_url_passes(url: str) -> None:
    assert str(guard().check_url(url)).startswith("http")


def test_a_refusal_does_not_repeat_the_url() -> None:
    with pytest.raises(Blocked) as refusal:
        guard().check_url("http://user:hunter2@example.com/")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%2"],
        ["64:ff9b::a00:1"],
        ["169.254.169.254"],
        [PUBLIC, "10.0.0.1"],
        [PUBLIC, "::1"],
    ],
)
async def test_a_name_that_leads_inside_even_in_part_is_refused(answer: list[str]) -> None:
    with pytest.raises(Blocked) as refusal:
        await guard("", answer).resolve("rebind.example.com", 443)
    assert "10.0" not in str(refusal.value)


async def test_a_public_name_resolves_to_its_addresses() -> None:
    public = ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", PUBLIC, PUBLIC]
    assert await guard("", public).resolve("example.com", 443) == (
        ip_address(public[0]),
        ip_address(PUBLIC),
    )


async def test_a_name_is_asked_once_for_all_who_ask_at_the_same_time() -> None:
    resolver = Resolver([PUBLIC])
    guarding = Guard(parse_allow(""), lookup=resolver)
    await asyncio.gather(*(guarding.resolve("Example.com.", 443) for _ in range(10)))
    await guarding.resolve("example.com", 443)
    assert resolver.asked == ["example.com"]


async def test_one_who_gives_up_does_not_take_the_lookup_from_the_others() -> None:
    answered = asyncio.Event()

    async def slow(host: str) -> Sequence[str]:
        await answered.wait()
        return [PUBLIC]

    guarding = Guard(parse_allow(""), lookup=slow)
    impatient = asyncio.create_task(guarding.resolve("example.com", 443))
    patient = asyncio.create_task(guarding.resolve("example.com", 443))
    await asyncio.wait([impatient], timeout=0)
    impatient.cancel()
    answered.set()
    assert await patient == (ip_address(PUBLIC),)
    assert impatient.cancelled()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), NameNotFound),
        (socket.gaierror(socket.EAI_AGAIN, "later"), LookupFailed),
        (OSError("broken"), LookupFailed),
        (TimeoutError(), LookupFailed),
    ],
)
async def test_a_name_that_is_gone_is_told_from_a_resolver_that_is(
    error: Exception, kind: type[Exception]
) -> None:
    async def failing(host: str) -> Sequence[str]:
        raise error

    with pytest.raises(kind):
        await Guard(parse_allow(""), lookup=failing).resolve("example.com", 443)


async def test_a_failed_lookup_is_not_remembered() -> None:
    answers: list[Sequence[str] | Exception] = [socket.gaierror(socket.EAI_AGAIN), [PUBLIC]]

    async def flaky(host: str) -> Sequence[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    guarding = Guard(parse_allow(""), lookup=flaky)
    with pytest.raises(LookupFailed):
        await guarding.resolve("example.com", 443)
    assert await guarding.resolve("example.com", 443)


async def test_the_systems_resolver_is_asked_by_default() -> None:
    guarding = Guard(parse_allow("localhost"))
    try:
        addresses = await guarding.resolve("localhost", 80)
    finally:
        guarding.close()
    assert all(address.is_loopback for address in addresses)


class TestAllowList:
    def test_a_network_opens_its_addresses(self) -> None:
        guarding = guard("10.1.0.0/16, fd00::/8")
        guarding.check_url("http://10.1.2.3/")
        guarding.check_url("http://[fd00::1]/")
        with pytest.raises(Blocked):
            guarding.check_url("http://10.2.0.1/")

    async def test_a_network_opens_the_names_that_lead_there(self) -> None:
        guarding = guard("10.1.0.0/16", ["10.1.0.9"], ["10.2.0.9"])
        assert await guarding.resolve("inside.example.com", 80)
        with pytest.raises(Blocked):
            await guarding.resolve("elsewhere.example.com", 80)

    async def test_a_host_is_open_wherever_it_leads(self) -> None:
        guarding = guard("intranet", ["10.0.0.1"])
        guarding.check_url("http://intranet/")
        assert await guarding.resolve("Intranet.", 80)
        with pytest.raises(Blocked):
            await guarding.resolve("other", 80)

    async def test_a_host_with_a_port_is_open_at_that_port_only(self) -> None:
        guarding = guard("intranet:8080 127.0.0.1:9000 [::1]:9001", ["10.0.0.1"])
        assert await guarding.resolve("intranet", 8080)
        with pytest.raises(Blocked):
            await guarding.resolve("intranet", 8081)
        guarding.check_url("http://127.0.0.1:9000/")
        guarding.check_url("http://[::1]:9001/")
        for url in ("http://127.0.0.1:9001/", "http://[::1]:9000/"):
            with pytest.raises(Blocked):
                guarding.check_url(url)

    def test_a_closed_port_opens_only_by_name(self) -> None:
        guard("intranet:6379").check_url("http://intranet:6379/")
        guard("127.0.0.1:6379").check_url("http://127.0.0.1:6379/")
        for allow in ("intranet", "127.0.0.1"):
            with pytest.raises(Blocked):
                guard(allow).check_url(f"http://{allow}:6379/")

    def test_an_ipv4_network_does_not_open_its_mapped_twin(self) -> None:
        with pytest.raises(Blocked):
            guard("127.0.0.0/8").check_url("http://[::ffff:127.0.0.1]/")

    @pytest.mark.parametrize(
        "entry",
        ["10.0.0.1/8", "http://intranet", "in tranet/", "intranet:x", "127.1", "*", "[::1"],
    )
    def test_an_entry_that_is_none_of_these_is_refused(self, entry: str) -> None:
        with pytest.raises(ConfigError, match="OUTBOX_WEBHOOK_ALLOW"):
            parse_allow(entry)

    def test_an_empty_list_opens_nothing(self) -> None:
        assert parse_allow(" , ") == parse_allow("")


@pytest.mark.parametrize("literal", ["8.8.8.8", "1.1.1.1", "100.63.0.1", "172.32.0.1", "2600::1"])
def test_public_addresses_are_public(literal: str) -> None:
    assert is_public(ip_address(literal))
