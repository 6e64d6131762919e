"""Attached: runs beside the pool, each in a thread of its own, a bounded number of them.

The pool has few places, and a run that follows something would keep one for as long as somebody looks.
"""

import threading
from collections.abc import Callable

#: A thread, a connection to the Engine and a stream each.
MOST_ATTACHED = 32


class Attached:
    """The places for runs beside the pool. Thread-safe."""

    def __init__(self, most: int = MOST_ATTACHED) -> None:
        self._places = threading.BoundedSemaphore(most)

    def start(self, run_id: str, carry_out: Callable[[], None]) -> bool:
        """Have a run carried out in a thread of its own; False where all places are taken."""
        if not self._places.acquire(blocking=False):
            return False

        def run() -> None:
            try:
                carry_out()
            finally:
                self._places.release()

        threading.Thread(target=run, name=f"beside-{run_id}", daemon=True).start()
        return True
