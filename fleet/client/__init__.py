"""The client: pushes to one host, several, those with certain labels, or all, and waits for what comes of it.

    fleet = Fleet()
    batch = fleet.push("fleet.containers.restart", selector={"env": "prod"}, arguments={"container": "web"})
    for outcome in batch.wait(timeout=60):
        print(outcome.host, outcome.state)

It needs the broker only, never the database. Who is enrolled, and with which labels, it reads from the registry that
the control plane keeps in the broker.
"""

from fleet.client.batch import Batch, Outcome
from fleet.client.fleet import Fleet, OfflinePolicy, Target
from fleet.client.output import Output, Said
from fleet.client.watching import Watch

__all__ = ["Batch", "Fleet", "OfflinePolicy", "Outcome", "Output", "Said", "Target", "Watch"]
