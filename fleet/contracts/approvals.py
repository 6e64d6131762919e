"""What an approval is bound to: the digest of one request, as its principal signed it for one host.

Whoever approves signs the digest; the host compares it with that of the request it has parked. A changed byte anywhere
makes another digest.
"""

import hashlib
import json
from typing import Any

from fleet import canonical
from fleet.contracts.envelope import HEADER


def arguments(item: str) -> dict[str, Any]:
    """Return the arguments in a queue item; raises ValueError for what is no task message of Fleet's."""
    try:
        return dict(canonical.read(json.loads(item)["body"])[1])
    except (KeyError, TypeError, IndexError, RecursionError) as exc:
        raise ValueError("no task message") from exc


def digest(item: str) -> str:
    """Return the digest of a queue item: of run, contract, arguments and envelope (host, principal, limits …), in hex.

    Raises ValueError for what is no task message of Fleet's.
    """
    try:
        message = json.loads(item)
        headers, body = message["headers"], message["body"]
        bound: dict[str, Any] = {
            "run": headers["id"],
            "task": headers["task"],
            "arguments": canonical.read(body)[1],
            "envelope": headers[HEADER],
        }
        return hashlib.sha256(canonical.encode(bound)).hexdigest()
    except (KeyError, TypeError, IndexError, RecursionError) as exc:
        raise ValueError("no task message") from exc
