"""The tasks of contracts: what Celery's pool calls, a task for each contract, which has the pipeline carry it out."""

from typing import Any

from celery import Celery, Task

from fleet import errors
from fleet.contracts import AnyContract, registry
from workers.host.pipeline import Pipeline


class HostTask(Task):  # type: ignore[type-arg]
    """A contract as a Celery task of the host's side."""

    ignore_result = True  # the outbox writes results, together with the journal
    typing = False
    #: errors that are outcomes, not surprises: Celery must not print their tracebacks
    throws = (errors.FleetError,)

    def __init__(self, contract: AnyContract, pipeline: Pipeline) -> None:
        self.name = contract.name
        self._contract = contract
        self._pipeline = pipeline

    def run(self, *_args: Any, **_arguments: Any) -> None:
        # Arguments are read from the journal: what Celery made of them has been through its own hands.
        self._pipeline.carry_out(self._contract, str(self.request.id))


def register(app: Celery, pipeline: Pipeline) -> None:
    """Register a Celery task for every contract known here."""
    for contract in registry.known().values():
        app.register_task(HostTask(contract, pipeline))
