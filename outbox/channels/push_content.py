"""What a push message says beside its title and text: the job's `data`, or its part `push`."""

from __future__ import annotations

import msgspec

from outbox.message import Message

CONTENT_BYTES_MAX = 4_096
"""What FCM takes of notification and data, and push services of a whole body."""


class ContentRefused(ValueError):
    """The job's data cannot be sent as it is."""


def push_data(message: Message) -> dict[str, msgspec.Raw]:
    """Return what an app is told, as JSON by name.

    Without a text of its own, that is the whole of `data`. With one, `data` is what the template
    was filled in with, and only its object `push` is told. Raises ContentRefused.
    """
    try:
        data = msgspec.json.decode(message.data_json, type=dict[str, msgspec.Raw])
        if message.text is not None or message.subject is not None:
            part = data.get("push")
            data = {} if part is None else msgspec.json.decode(part, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        raise ContentRefused("the job's data.push is no object") from None
    return data
