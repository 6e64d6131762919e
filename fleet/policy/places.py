"""Places: a policy by where its directories really are, for a question about where a path really leads.

An entry means the files below its directory, whatever name they are reached by. A request is judged by its words first;
where the host has followed the links, it asks again with the real path, and then the real directories have to stand
beside it: one that is named by a link is no other directory.
"""

from collections.abc import Callable
from typing import TypeVar

from fleet.policy.fleets import FleetPolicy
from fleet.policy.host import HostPolicy

PolicyT = TypeVar("PolicyT", FleetPolicy, HostPolicy)


def really(policy: PolicyT, lead: Callable[[str], str]) -> PolicyT:
    """Return a policy with each directory of its entries where it leads; `lead` follows the links of a path."""
    return policy.model_copy(
        update={
            "commands": policy.commands and tuple(each.led(lead) for each in policy.commands),
            "files": policy.files and tuple(each.led(lead) for each in policy.files),
        }
    )
