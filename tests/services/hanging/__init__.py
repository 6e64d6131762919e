"""Hanging: a process with `PATH` on its path can be made to hang in its main thread, by `HANGS`, until `GOES_ON`."""

import signal
from pathlib import Path

PATH = Path(__file__).parent
#: Signals that neither Celery nor Fleet uses.
HANGS, GOES_ON = signal.SIGRTMIN, signal.SIGRTMIN + 1
