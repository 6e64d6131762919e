"""Background: one call beside the loop that listens for signals, and its error where somebody looks."""

import threading
from collections.abc import Callable


class Background:
    """A call in a thread of its own, begun at once. A process that ends does not wait for it."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)
        self._thread.start()

    def is_done(self) -> bool:
        """Say whether it has ended; raises what it raised."""
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def _run(self) -> None:
        try:
            self._act()
        except Exception as exc:  # noqa: BLE001 - raised again by whoever looks
            self._error = exc
