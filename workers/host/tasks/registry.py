"""Which function carries out which of Fleet's own contracts; for those of packages see `packages`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fleet.contracts import container_output, containers, hosts, images
from fleet.contracts.hosts import Facts
from workers.host.settling import Reconcile
from workers.host.streams import OwnPerformer
from workers.host.tasks import hosts as host_tasks
from workers.host.tasks.containers import ContainerTasks
from workers.host.tasks.following import FollowingTasks
from workers.host.tasks.images import ImageTasks

NOTHING: Mapping[str, OwnPerformer] = MappingProxyType({})


def performers(
    detect: Callable[[], Facts], on_containers: ContainerTasks, *, governed: Mapping[str, OwnPerformer] = NOTHING
) -> Mapping[str, OwnPerformer]:
    """Return the function for each of Fleet's own contracts, by the contract's name.

    `governed` are those of contracts whose every request needs a grant.
    """
    following = FollowingTasks(on_containers.engine, on_containers.grants)
    on_images = ImageTasks(on_containers.engine)
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
        container_output.LOGS.name: following.logs,
        container_output.STATS.name: following.stats,
        images.LIST.name: on_images.list,
        images.PULL.name: on_images.pull,
        images.REMOVE.name: on_images.remove,
        **governed,
    }


def reconcilers(on_containers: ContainerTasks) -> Mapping[str, Reconcile]:
    """Return, for each contract that says `Restart.RECONCILE`, what compares a run with the Engine's state."""
    return {
        containers.RESTART.name: on_containers.restarted,
        containers.CREATE.name: on_containers.created,
        containers.REMOVE.name: on_containers.removed,
        images.REMOVE.name: ImageTasks(on_containers.engine).removed,
    }
