"""The operator's bucket, where mails' attachments may lie: where it is, and reading from it.

A tenant reads below its own prefix alone: where `OUTBOX_S3_URL` has no `{tenant}` in it, the
bucket is the default tenant's. obstore is imported where there is something to read.
"""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from outbox.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

S3_SCOPE = "s3"
"""The key of the hold (of the scope `endpoint`) where jobs wait whose attachments lie there."""
URL_FORM = "s3://KEY:SECRET@host/bucket"
TENANT = "{tenant}"

S3Trouble: TypeAlias = Literal["missing", "refused", "bucket", "tenant", "away", "timeout"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_REGION = re.compile(r"[a-z0-9-]{1,40}\Z")
_AMAZONS = re.compile(r"s3[.-]([a-z0-9-]+)\.amazonaws\.com\Z")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
# Answered with a 400, and about us all the same.
_ABOUT_LOGIN = frozenset({"AuthorizationHeaderMalformed", "ExpiredToken", "InvalidToken"})


class S3Place(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket and our login there; without one, it is the machine's own."""

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    key: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"S3Place({self.endpoint}, {self.bucket})"


class S3File(msgspec.Struct, frozen=True):
    """An object. `content`: None where it is longer than asked for."""

    content: bytes | None
    content_type: str | None


class S3Failure(msgspec.Struct, frozen=True):
    """Why there is none. `reason` names neither the key nor the login."""

    trouble: S3Trouble
    reason: str


def parse_s3_url(url: str) -> S3Place:
    """Return the bucket of `s3[+http]://[KEY:SECRET@]host[:port]/bucket[/prefix][?region=…]`.

    Raises ConfigError: the end of a sentence that begins with the setting's name, which never
    repeats the URL.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"must be {URL_FORM}") from None
    bucket, _, prefix = unquote(parts.path).strip("/").partition("/")
    if parts.scheme not in ("s3", "s3+http") or not host or not _BUCKET.match(bucket):
        raise ConfigError(f"must be {URL_FORM}, or s3+http://…")
    if parts.fragment or re.search(r"(\A|/)\.{0,2}(/|\Z)", prefix or "x"):
        raise ConfigError("has a fragment, or a folder without a name")
    told = dict(parse_qsl(parts.query, keep_blank_values=True))
    region = told.pop("region", None)
    if told or (region is not None and not _REGION.match(region)):
        raise ConfigError("takes ?region=… and nothing else")
    key, secret = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(key) != bool(secret):
        raise ConfigError("has a key without a secret, or the other way")
    amazons = _AMAZONS.match(host)
    place = f"[{host}]" if ":" in host else host
    scheme = "https" if parts.scheme == "s3" else "http"
    return S3Place(
        endpoint=f"{scheme}://{place}" + (f":{port}" if port is not None else ""),
        bucket=bucket,
        prefix=prefix,
        region=region or (amazons[1] if amazons else "us-east-1"),
        key=key or None,
        secret=secret or None,
    )


class S3Bucket:
    """Reads from one bucket. Raises ConfigError where the extra `s3` is not installed."""

    def __init__(self, place: S3Place) -> None:
        if find_spec("obstore") is None:
            raise ConfigError("OUTBOX_S3_URL needs the extra s3: pip install 'outbox[s3]'")
        self._place = place

    async def get(
        self, tenant: str, key: str, *, bytes_max: int, timeout_s: float
    ) -> S3File | S3Failure:
        """Return a tenant's object. `key` has no empty part, no `.` and no `..` in it."""
        from obstore import get_async
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        path = self._path(tenant, key)
        if path is None:
            reason = "the bucket has no folder for this tenant: OUTBOX_S3_URL has no {tenant}"
            return S3Failure("tenant", reason)
        try:
            async with asyncio.timeout(timeout_s):
                found = await get_async(_store(self._place), path)
                content = None
                if found.meta["size"] <= bytes_max:
                    content = bytes(await found.bytes_async())
                return S3File(content, found.attributes.get("Content-Type"))
        except TimeoutError:
            return S3Failure("timeout", "the bucket did not answer in time")
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                return S3Failure("bucket", "there is no such bucket")
            return S3Failure("missing", "there is no such object")
        except (PermissionDeniedError, UnauthenticatedError) as error:
            return S3Failure("refused", f"the bucket refuses us: {_code(error)}")
        except (BaseError, OSError, ValueError) as error:
            return _failure(error)

    def _path(self, tenant: str, key: str) -> str | None:
        prefix = self._place.prefix
        if TENANT in prefix:
            if not _TENANT.match(tenant):
                return None
            prefix = prefix.replace(TENANT, tenant)
        elif tenant != "default":
            return None
        return f"{prefix}/{key}" if prefix else key


@lru_cache(maxsize=16)
def _store(place: S3Place) -> S3Store:
    from obstore.store import S3Store

    config: S3Config = {
        "endpoint": place.endpoint,
        "region": place.region,
        "virtual_hosted_style_request": False,
    }
    if place.key is not None and place.secret is not None:
        config["access_key_id"], config["secret_access_key"] = place.key, place.secret
    return S3Store(
        place.bucket,
        config=config,
        client_options={"allow_http": place.endpoint.startswith("http:")},
        retry_config={"max_retries": 0},
    )


def _failure(error: Exception) -> S3Failure:
    if "redirect without LOCATION" in str(error):
        return S3Failure("refused", "the bucket is in another region than OUTBOX_S3_URL says")
    status = _STATUS.search(str(error))
    if status is None:
        return S3Failure("away", "the bucket cannot be reached")
    code = _code(error)
    trouble: S3Trouble = "refused" if code in _ABOUT_LOGIN else "away"
    return S3Failure(trouble, f"the bucket answered {status[1]}: {code}")


def _code(error: Exception) -> str:
    found = _CODE.search(str(error))
    return found[1] if found else "it does not say why"
