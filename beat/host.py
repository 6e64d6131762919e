"""What a host worker schedules."""

from datetime import timedelta

from beat.scheduler import Entry
from fleet.contracts.presence import HEARTBEAT_INTERVAL

HEARTBEAT_TASK = "fleet.beat.heartbeat"
PRUNE_TASK = "fleet.beat.prune"

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
    Entry(
        name="prune",
        task=PRUNE_TASK,
        interval=timedelta(hours=1),
        jitter=0.5,
        retry=timedelta(minutes=5),
        why="the journal remembers for a month; an hour more does not count",
    ),
)
