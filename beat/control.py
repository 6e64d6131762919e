"""What a control worker schedules."""

from datetime import timedelta

from beat.scheduler import Entry

LEASE_TASK = "fleet.beat.lease"
PRESENCE_TASK = "fleet.beat.presence"
REGISTRY_TASK = "fleet.beat.registry"
RESCUE_TASK = "fleet.beat.rescue"
TRUST_TASK = "fleet.beat.trust"
JOINERS_TASK = "fleet.beat.joiners"
DATABASE_TASK = "fleet.beat.database"

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
        why="a broker that lost its data gets the list of hosts, and hosts their availability, back within a minute",
    ),
)
#: In a thread of their own: what waits for a long queue or a slow database must not hold up the lease.
SLOW_ENTRIES = (
    Entry(
        name="trust",
        task=TRUST_TASK,
        interval=timedelta(seconds=2),
        jitter=0.1,
        retry=timedelta(seconds=1),
        why="a broker that started anew without its users lets nobody in until they are there again",
    ),
    Entry(
        name="joiners",
        task=JOINERS_TASK,
        interval=timedelta(seconds=60),
        jitter=0.2,
        retry=timedelta(seconds=30),
        why="a token that is used up or expired keeps its broker user for a minute, and not for much longer",
    ),
    Entry(
        name="rescue",
        task=RESCUE_TASK,
        interval=timedelta(seconds=5),
        jitter=0.1,
        retry=timedelta(seconds=5),
        why="a message that the broker lost is sent again 10 to 15 s after its push",
    ),
)
#: In one more: a database that does not answer must be seen by whoever asks how this process is, and hold up nobody.
DATABASE_ENTRIES = (
    Entry(
        name="database",
        task=DATABASE_TASK,
        interval=timedelta(seconds=5),
        jitter=0.1,
        retry=timedelta(seconds=1),
        why="the health endpoint says that it answers as long as it did within 15 s",
    ),
)
