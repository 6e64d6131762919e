"""The pulse of the consumer loop: when it last ticked. Heartbeats carry its age, so a loop that hangs is seen."""

import time


class Pulse:
    def __init__(self) -> None:
        self._ticked_at: float | None = None

    def tick(self) -> None:
        self._ticked_at = time.monotonic()

    def age(self) -> float | None:
        """Return the seconds since the last tick; None before the first."""
        return None if self._ticked_at is None else round(time.monotonic() - self._ticked_at, 3)
