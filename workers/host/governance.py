"""Governance: the parts of a worker that decide what may be done here, put together for one session."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleet import policy
from fleet.clock import BrokerClock
from fleet.contracts.reports import Kind
from fleet.masking import Masker
from fleet.settings import Settings
from workers.host.deadlines import Deadlines
from workers.host.governing import Governor
from workers.host.outbox import Outbox
from workers.host.own import Own
from workers.host.parked import Parked
from workers.host.parking import Parking
from workers.host.ruling import Ruling
from workers.host.store import Store


@dataclass(frozen=True)
class Governance:
    """What a session has to decide by."""

    ruling: Ruling
    governor: Governor
    parking: Parking
    _outbox: Outbox

    def learn(self, signed: str) -> None:
        """Go by a newer policy of the fleet's, and report that; raises `errors.NotTrusted`, `errors.LocalFault`."""
        if self.ruling.learn(signed):
            self._outbox.report(Kind.HOST_POLICY_TAKEN, {"version": self.ruling.version})


def wire(
    settings: Settings,
    *,
    own: Own,
    store: Store,
    outbox: Outbox,
    deadlines: Deadlines,
    clock: BrokerClock,
    secrets: Callable[[], Iterable[bytes]],
    wake: Callable[[], None],
) -> Governance:
    """Put it together for a session; raises `errors.SettingsInvalid` for a wrong policy of the host's owner.

    `secrets` returns what nothing on record may show, as it is known at that moment.
    """
    ruling = Ruling(settings.host_dir(own.host) / "policy.json", own)
    governor = Governor(
        own=own,
        ruling=ruling,
        host_policy=policy.of_host(settings),
        clock=clock,
        takes_commands=settings.shell,
        mask=_Mask(secrets),
    )
    parking = Parking(
        Parked(store, outbox, clock=clock),
        governor=governor,
        outbox=outbox,
        deadlines=deadlines,
        clock=clock,
        wake=wake,
    )
    return Governance(ruling, governor, parking, outbox)


class _Mask:
    """Hides the secrets of the moment; what finds them is made anew only when they have changed."""

    def __init__(self, secrets: Callable[[], Iterable[bytes]]) -> None:
        self._secrets = secrets
        self._known: frozenset[bytes] = frozenset()
        self._masker = Masker(())

    def __call__(self, text: str) -> str:
        now = frozenset(self._secrets())
        if now != self._known:
            self._masker, self._known = Masker(now), now
        return self._masker.text(text)
