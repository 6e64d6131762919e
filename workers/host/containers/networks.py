"""Networks that a container is to be in: those that are on the host, by their own names."""

from collections.abc import Sequence
from typing import NamedTuple

from fleet import errors
from workers.host.containers import calls
from workers.host.containers.engine import Engine

_NONE = "none"
#: Drivers of networks that are none of a container's own; `network_mode` asks for the host's.
_NO_NETWORKS = frozenset({"host", "null"})


class Network(NamedTuple):
    name: str
    network_id: str


def resolve(engine: Engine, names: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks of these names; raises `errors.EngineRefused` of kind `no_such_network`.

    The Engine takes (the beginning of) an id for a name, also that of the host's own network: here a name is a name.
    """
    found = []
    for name in names:
        if name == _NONE:
            continue
        about = f"network {name!r}"
        details = engine.ask("GET", f"/networks/{calls.part(name)}", about=about, kinds={404: "no_such_network"})
        if details["Name"] != name or details["Driver"] in _NO_NETWORKS:
            raise errors.EngineRefused(
                f"{about}: there is no network of that name to be in",
                kind="no_such_network",
                remedy="write its name in full; `docker network ls` on the host shows them",
            )
        found.append(Network(name, details["Id"]))
    return tuple(found)


def join(engine: Engine, docker_id: str, networks: Sequence[Network]) -> None:
    """Have a container in all of these networks; it was made in the first."""
    there = engine.inspect(docker_id)["NetworkSettings"].get("Networks") or {}
    for network in networks:
        if network.name not in there:
            engine.ask(
                "POST",
                f"/networks/{calls.part(network.network_id)}/connect",
                about=f"network {network.name!r}",
                kinds={404: "no_such_network"},
                body={"Container": docker_id},
            )
