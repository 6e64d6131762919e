"""Questions: who asks for what, where."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.contracts import AnyContract, Request
from fleet.security.identity import Level


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the policy is asked."""

    principal: str
    level: Level
    #: of the host's credential
    labels: Mapping[str, str]
    contract: AnyContract
    request: Request
    #: asked for (shell); None where nobody did, and the entry's own or the usual one counts, whichever is shorter
    limit_seconds: float | None
