"""Gaps: reports that are missing, asked for again, and for how long they are waited for.

A broker that lost its disk lost what hosts had reported and nobody had taken in; the hosts still have it. What came
after a gap is left to come again in its order, so nothing on record is ever missing but what a host itself has lost.
"""

from datetime import timedelta

from fleet import clock

#: A host sends again within a second or two; one that has not within this time has lost it.
PATIENCE = timedelta(seconds=30)
#: Between two requests for the same.
_ASK_AGAIN = timedelta(seconds=5)


class Gaps:
    """What is missing, as one control worker knows."""

    def __init__(self, *, patience: timedelta = PATIENCE) -> None:
        self._patience = patience.total_seconds()
        #: (host, session) → first number that is missing, since when, and when it was asked for last
        self._known: dict[tuple[str, int], tuple[int, float, float]] = {}

    def waits_for(self, host: str, epoch: int, seq: int) -> bool:
        """Say whether this report is still waited for; it is from the first time on that this is asked."""
        known = self._known.get((host, epoch))
        if known is None or known[0] != seq:
            self._known[host, epoch] = (seq, clock.elapsed(), float("-inf"))
            return True
        if clock.elapsed() - known[1] < self._patience:
            return True
        del self._known[host, epoch]
        return False

    def to_ask(self, host: str, epoch: int, seq: int) -> bool:
        """Say whether it is time to ask for this report, and take note of it."""
        first, since, asked_at = self._known.get((host, epoch), (seq, clock.elapsed(), float("-inf")))
        now = clock.elapsed()
        if now - asked_at < _ASK_AGAIN.total_seconds():
            return False
        self._known[host, epoch] = (first, since, now)
        return True
