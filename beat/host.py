"""What a host worker schedules."""

from datetime import timedelta

from beat.scheduler import Entry
from fleet.contracts.presence import HEARTBEAT_INTERVAL

HEARTBEAT_TASK = "fleet.beat.heartbeat"

ENTRIES = (
    Entry(
        name="heartbeat",
        task=HEARTBEAT_TASK,
        interval=HEARTBEAT_INTERVAL,
        jitter=0.2,
        retry=timedelta(seconds=1),
        why="three may be missed within the 35 s that a presence key lives; retried at once so that a host is back "
        "within 2 s of the broker",
    ),
)
