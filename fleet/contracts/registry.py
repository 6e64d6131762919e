"""The contracts known here: Fleet's own, and those that installed packages offer.

A package offers contracts by an entry point of the group `fleet.contracts` whose object is a `Contract` or an
iterable of them.
"""

from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType

from fleet import errors
from fleet.contracts import container_output, containers, files, hosts, images, shell
from fleet.contracts.contract import USUAL_REPLY_BYTES, AnyContract, Contract

ENTRY_POINT_GROUP = "fleet.contracts"
#: Names under this prefix are Fleet's own; no package can take one.
RESERVED_PREFIX = "fleet."
#: Fleet's own contracts.
OWN: tuple[AnyContract, ...] = (
    *hosts.ALL,
    *containers.ALL,
    *container_output.ALL,
    *images.ALL,
    *shell.ALL,
    *files.ALL,
)


@cache
def known() -> MappingProxyType[str, AnyContract]:
    """Return every contract by its name.

    Raises `errors.SettingsInvalid` where an installed package offers something that is no contract, has no function
    to carry it out, or takes a name that is Fleet's or another's.
    """
    contracts: dict[str, AnyContract] = {contract.name: contract for contract in OWN}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        offered = entry.load()
        for contract in (offered,) if isinstance(offered, Contract) else tuple(offered):
            problem = _problem(contract, contracts)
            if problem:
                raise errors.SettingsInvalid(
                    f"the package behind entry point {entry.value!r} offers {problem}",
                    remedy=f"mend or uninstall {entry.dist.name if entry.dist else 'it'}",
                )
            contracts[contract.name] = contract
    return MappingProxyType(contracts)


def _problem(contract: object, contracts: dict[str, AnyContract]) -> str:
    if not isinstance(contract, Contract):
        return f"{contract!r}, which is no fleet.contracts.Contract"
    if contract.name.startswith(RESERVED_PREFIX):
        return f"{contract.name!r}, a name reserved for Fleet"
    if contract.name in contracts:
        return f"{contract.name!r}, which another package offers as well"
    if contract.largest_reply > USUAL_REPLY_BYTES:
        return f"{contract.name!r} with replies of more than {USUAL_REPLY_BYTES:,} bytes"
    if ":" not in contract.perform:
        return f"{contract.name!r} without perform='package.module:function'"
    return ""


def get(name: str) -> AnyContract:
    """Return the contract of that name; raise `errors.UnknownTask` with the nearest name."""
    try:
        return known()[name]
    except KeyError:
        raise errors.UnknownTask(name, list(known())) from None
