"""Waiting for what another process does: look often, give up at a deadline, and say what was waited for."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], what: str, *, timeout: float = 15.0) -> T:
    """Look until there is something true, and return it; fail after `timeout` seconds, naming `what` was awaited."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        pause.wait(0.02)
