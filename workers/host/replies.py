"""Replies: what a performer may answer, wherever it ran."""

import json
from typing import Any

from fleet import errors
from fleet.contracts import AnyContract

#: Progress is sent this often at most.
PROGRESS_INTERVAL_SECONDS = 1.0
#: Messages of errors are for people; a page of one is enough.
MAX_ERROR_CHARACTERS = 4000


def checked_reply(contract: AnyContract, reply: object) -> dict[str, Any]:
    """Return a reply as JSON values; raises `errors.TaskFailed` for one of another type, or too large to travel."""
    if not isinstance(reply, contract.reply):
        raise errors.TaskFailed(
            f"{contract.name} answered {type(reply).__name__}, its contract says {contract.reply.__name__}",
            kind="wrong_reply",
        )
    data: dict[str, Any] = reply.model_dump(mode="json")
    try:
        size = len(json.dumps(data, allow_nan=False))
    except ValueError as exc:
        raise errors.TaskFailed(f"the reply of {contract.name} is no JSON ({exc})", kind="wrong_reply") from exc
    if size > contract.largest_reply:
        raise errors.TaskFailed(
            f"the reply is {size:,} bytes; {contract.largest_reply:,} are allowed", kind="reply_too_large"
        )
    return data
