"""Which function carries out which contract: Fleet's own, and those that installed packages bring."""

from collections.abc import Callable, Mapping
from importlib import import_module

from fleet import errors
from fleet.contracts import AnyContract, Performer, containers, hosts, registry
from fleet.contracts.hosts import Facts
from workers.host.engine import Engine
from workers.host.tasks import hosts as host_tasks
from workers.host.tasks.containers import ContainerTasks


def performers(engine: Engine, detect: Callable[[], Facts]) -> Mapping[str, Performer]:
    """Return the function for every contract known here, by the contract's name.

    Raises `errors.SettingsInvalid` where an installed package's function cannot be imported.
    """
    on_containers = ContainerTasks(engine)
    own: dict[str, Performer] = {
        hosts.PING.name: host_tasks.ping,
        hosts.FACTS.name: host_tasks.facts(detect),
        containers.LIST.name: on_containers.list,
        containers.INSPECT.name: on_containers.inspect,
        containers.START.name: on_containers.start,
        containers.STOP.name: on_containers.stop,
        containers.RESTART.name: on_containers.restart,
    }
    return {name: own.get(name) or _imported(contract) for name, contract in registry.known().items()}


def _imported(contract: AnyContract) -> Performer:
    """Import a package's function from the contract's `perform`, "package.module:function"."""
    module, _, function = contract.perform.partition(":")
    try:
        performer: Performer = getattr(import_module(module), function)
    except Exception as exc:  # importing runs the package's own code, which may raise anything
        raise _broken(contract, f"cannot be imported ({type(exc).__name__}: {exc})") from exc
    if not callable(performer):
        raise _broken(contract, f"is a {type(performer).__name__}, not a function")
    return performer


def _broken(contract: AnyContract, problem: str) -> errors.SettingsInvalid:
    return errors.SettingsInvalid(
        f"task {contract.name!r}: {contract.perform!r} {problem}",
        remedy="mend or uninstall the package that offers it",
    )
