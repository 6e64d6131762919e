"""The pulse of the consumer: when its loop last ticked, when it last asked for work, when the broker last answered.

Heartbeats and the health endpoint tell of it, so a loop that hangs is seen, and so is one that ticks and takes nothing.
"""

import time


class Pulse:
    """Monotonic times, each of which one thread writes."""

    def __init__(self) -> None:
        self._ticked_at: float | None = None
        self._breathed_at: float | None = None
        self._asked_at: float | None = None
        self._heard_at: float | None = None

    def tick(self) -> None:
        """The loop runs and is connected."""
        self._ticked_at = self._breathed_at = time.monotonic()

    def breathe(self) -> None:
        """The loop's thread does something: it connects anew, perhaps."""
        self._breathed_at = time.monotonic()

    def ask(self) -> None:
        """The broker has answered a question for work; or work is not wanted, so that none is asked."""
        self._asked_at = time.monotonic()

    def hear(self) -> None:
        """The broker has answered somebody in this process."""
        self._heard_at = time.monotonic()

    def age(self) -> float | None:
        """Return the seconds since the last tick; None before the first."""
        return _since(self._ticked_at)

    def breath_age(self) -> float | None:
        return _since(self._breathed_at)

    def asked_age(self) -> float | None:
        return _since(self._asked_at)

    def heard_age(self) -> float | None:
        return _since(self._heard_at)


def _since(moment: float | None) -> float | None:
    return None if moment is None else round(time.monotonic() - moment, 3)
