"""On the path of a process, this lets a test hang its main thread, for real: from one signal on until the other.

The interpreter runs handlers of signals in the main thread, between two of its steps, and this one does not return. The
other threads of the process go on. In a worker the main thread is the one in which Celery's event loop consumes.
"""

import signal
import threading
from types import FrameType

_goes_on = threading.Event()


def _hang(_number: int, _frame: FrameType | None) -> None:
    # a wait with a time-out, because the interpreter sees no other signal in one without
    while not _goes_on.wait(0.1):
        pass
    _goes_on.clear()


def _go_on(_number: int, _frame: FrameType | None) -> None:
    _goes_on.set()


signal.signal(signal.SIGRTMIN, _hang)
signal.signal(signal.SIGRTMIN + 1, _go_on)
