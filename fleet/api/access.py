"""Access: what a route needs of whoever calls it. Every route says it, and what none says is not served.

The level is not what a route needs, mostly: what may be pushed, approved or seen depends on what exactly is asked, and
the client code, the hosts and `sight` judge it. A route that changes who belongs to the fleet, or reads everybody's
records, needs a token that was made for that.
"""

from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fleet import errors
from fleet.api.callers import Caller
from fleet.bearer import Scope

_SCHEME = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="A token of a principal, made by `fleet principal token`."
)
#: Set on the functions below, for whoever walks the routes.
NEEDS = "fleet_needs"


class ScopeTooLow(errors.NotPermitted):
    """The token was not made for that."""

    code = "scope_too_low"


def _needs(scope: Scope) -> Callable[..., Iterator[Caller]]:
    def identify(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)] = None
    ) -> Iterator[Caller]:
        address = request.client.host if request.client else ""
        with request.app.state.callers.known(given.credentials if given else None, address=address) as caller:
            request.state.caller = caller
            _require(caller, scope)
            yield caller

    setattr(identify, NEEDS, scope)
    return identify


def _require(caller: Caller, scope: Scope) -> None:
    """Raise `errors.NotPermitted` for a token of a lower scope, or a principal that is not trusted with it any more."""
    known = caller.bearer
    if not known.scope.includes(scope):
        raise ScopeTooLow(
            f"this takes a bearer token of scope {scope.value}, and yours is for {known.scope.value} "
            f"(principal {known.principal!r}, {known.level.value})",
            remedy=f"`fleet principal token {known.principal} --scope {scope.value}` makes one",
        )
    if scope is not Scope.USE and not known.is_of_all:
        raise errors.NotPermitted(
            f"this takes an autonomous principal of all hosts, and {known.principal!r} is {known.level.value}"
            + (" of some" if known.selectors else ""),
            remedy="ask whoever looks after the control plane",
        )


#: Any principal.
Anybody = Annotated[Caller, Depends(_needs(Scope.USE))]
#: Whoever may read everybody's records.
Auditor = Annotated[Caller, Depends(_needs(Scope.AUDIT))]
#: Whoever may change who belongs to the fleet.
Admin = Annotated[Caller, Depends(_needs(Scope.ADMIN))]
