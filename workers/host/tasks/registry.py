"""Which function carries out which of Fleet's own contracts; for those of packages see `packages`."""

from collections.abc import Callable, Mapping

from fleet.contracts import Performer, containers, hosts
from fleet.contracts.hosts import Facts
from workers.host.settling import Reconcile
from workers.host.tasks import hosts as host_tasks
from workers.host.tasks.containers import ContainerTasks


def performers(detect: Callable[[], Facts], on_containers: ContainerTasks) -> Mapping[str, Performer]:
    """Return the function for each of Fleet's own contracts, by the contract's name."""
    return {
        hosts.PING.name: host_tasks.ping,
        hosts.FACTS.name: host_tasks.facts(detect),
        containers.LIST.name: on_containers.list,
        containers.INSPECT.name: on_containers.inspect,
        containers.START.name: on_containers.start,
        containers.STOP.name: on_containers.stop,
        containers.RESTART.name: on_containers.restart,
        containers.CREATE.name: on_containers.create,
        containers.CHECK.name: on_containers.check,
        containers.KILL.name: on_containers.kill,
        containers.REMOVE.name: on_containers.remove,
        containers.WAIT.name: on_containers.wait,
    }


def reconcilers(on_containers: ContainerTasks) -> Mapping[str, Reconcile]:
    """Return, for each contract that says `Restart.RECONCILE`, what compares a run with the Engine's state."""
    return {
        containers.RESTART.name: on_containers.restarted,
        containers.CREATE.name: on_containers.created,
        containers.REMOVE.name: on_containers.removed,
    }
