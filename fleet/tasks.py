"""Tasks, as programs push them.

    from fleet.tasks import restart_container

    restart_container.on("edge-7").delay(container="web").get(timeout=30)      # {"container": {...}}
    restart_container.on("edge-7").apply_async(kwargs={"container": "web"}, countdown=60, time_limit=30, max_retries=2)
    group(list_containers.on(host).s() for host in ("edge-1", "edge-2"))().get()  # Celery canvas

Names of hosts and arguments are checked here; errors are Fleet's (`fleet.errors`). The broker is found as the CLI finds
it, see `fleet.configuration`; nothing is read or connected before the first push.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from fleet import names
from fleet.contracts import AnyContract, container_output, containers, files, hosts, images, registry, shell

if TYPE_CHECKING:
    from fleet.dispatch import Offline, RunResult, RunSignature

__all__ = [
    "Pushable",
    "check_container",
    "container_logs",
    "container_stats",
    "create_container",
    "get_file",
    "host_facts",
    "inspect_container",
    "kill_container",
    "list_containers",
    "list_files",
    "list_images",
    "ping_host",
    "pull_image",
    "put_file",
    "remove_container",
    "remove_image",
    "restart_container",
    "run_command",
    "start_container",
    "stop_container",
    "task",
    "wait_container",
]


@cache
def _fleet() -> Any:
    from fleet.client import Fleet

    return Fleet()


class Pushable:
    """A contract that can be pushed to a host."""

    def __init__(self, contract: AnyContract) -> None:
        self.contract = contract
        self.__doc__ = f"{contract.summary} Takes {contract.signature()}."

    def on(self, host: str, *, offline: "Offline" = "fail") -> "OnHost":
        """Name the host; raises `errors.InvalidValue` for what cannot be one.

        A host that is not connected is an error at the push, unless `offline="queue"` queues for it.
        """
        return OnHost(self.contract, names.host_id(host), offline)

    def __repr__(self) -> str:
        return f"<task {self.contract.name}({self.contract.signature()})>"


class OnHost:
    """A contract and the host it is meant for; it has the methods of a Celery task that push."""

    def __init__(self, contract: AnyContract, host: str, offline: "Offline") -> None:
        self._contract = contract
        self._options = {"host": host, "offline": offline}

    def delay(self, *args: Any, **arguments: Any) -> "RunResult":
        """Push with these arguments and return the result to come.

        It comes back when the broker has the task. Until the control plane has recorded it too, a fraction of a second
        later, a broker that loses its disk loses the task; `Fleet.push` with `Fleet.recorded` waits for that.
        """
        return self.apply_async(args, arguments)

    def apply_async(self, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> "RunResult":
        """Push with options, such as `countdown=60` or `time_limit=30`; see `fleet.dispatch.Options` for all.

        The result has `.get()` as ever, and `.cancel()`.
        """
        task: Any = _fleet().dispatcher.task(self._contract.name)
        result: RunResult = task.apply_async(args, kwargs, **{**self._options, **options})
        return result

    def signature(self, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> "RunSignature":
        """Return a Celery signature, for groups. Arguments are checked now."""
        from fleet.dispatch import RunSignature

        task = _fleet().dispatcher.task(self._contract.name)
        arguments = dict(kwargs or {})
        self._contract.parse(arguments)
        return RunSignature(task, args=args, kwargs=arguments, app=task.app, options={**self._options, **options})

    def s(self, *args: Any, **arguments: Any) -> "RunSignature":
        """Return a Celery signature with these arguments."""
        return self.signature(args, arguments)

    si = s  # every signature of a contract is immutable in effect: results are never fed into arguments


def task(name: str) -> Pushable:
    """Return the task of that name, a package's own among them; raises `errors.UnknownTask`."""
    return Pushable(registry.get(name))


ping_host = Pushable(hosts.PING)
host_facts = Pushable(hosts.FACTS)
list_containers = Pushable(containers.LIST)
inspect_container = Pushable(containers.INSPECT)
start_container = Pushable(containers.START)
stop_container = Pushable(containers.STOP)
restart_container = Pushable(containers.RESTART)
create_container = Pushable(containers.CREATE)
check_container = Pushable(containers.CHECK)
kill_container = Pushable(containers.KILL)
remove_container = Pushable(containers.REMOVE)
wait_container = Pushable(containers.WAIT)
container_logs = Pushable(container_output.LOGS)
container_stats = Pushable(container_output.STATS)
list_images = Pushable(images.LIST)
pull_image = Pushable(images.PULL)
remove_image = Pushable(images.REMOVE)
run_command = Pushable(shell.RUN)
list_files = Pushable(files.LIST)
get_file = Pushable(files.GET)
put_file = Pushable(files.PUT)
