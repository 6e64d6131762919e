"""What a control worker schedules."""

from datetime import timedelta

from beat.scheduler import Entry

LEASE_TASK = "fleet.beat.lease"
PRESENCE_TASK = "fleet.beat.presence"
REGISTRY_TASK = "fleet.beat.registry"

ENTRIES = (
    Entry(
        name="lease",
        task=LEASE_TASK,
        interval=timedelta(seconds=2),
        jitter=0.1,
        retry=timedelta(seconds=1),
        why="the lease lives for 10 s and is believed in for 8: three renewals may fail",
    ),
    Entry(
        name="presence",
        task=PRESENCE_TASK,
        interval=timedelta(seconds=5),
        jitter=0.1,
        retry=timedelta(seconds=5),
        why="what is known of a silent host's last heartbeat is 5 s old at most, against limits of 35 s and 120 s",
    ),
    Entry(
        name="registry",
        task=REGISTRY_TASK,
        interval=timedelta(seconds=60),
        jitter=0.2,
        retry=timedelta(seconds=5),
        why="a broker that lost its data gets the list of hosts back within a minute",
    ),
)
