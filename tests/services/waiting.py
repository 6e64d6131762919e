"""Waiting for what another process does: look often, give up at a deadline, and say what was waited for.

The deadline is for what hangs: half a minute is far more than a loaded machine needs for anything that is under way.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Time limits, in seconds, for what has to begin before its limit is over: where a busy machine did not let it, the
#: next one is given. The first is long enough most of the time, the last one always.
LIMITS = (0.5, 3.0, 20.0)


def until(look: Callable[[], T], what: str, *, timeout: float = 30.0) -> T:
    """Look until there is something true, and return it; fail after `timeout` seconds, naming `what` was awaited."""
    deadline = time.monotonic() + timeout
    pause, seconds = threading.Event(), 0.01  # longer and longer: looking takes CPU from what is waited for
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        pause.wait(seconds)
        seconds = min(seconds * 1.25, 0.1)
