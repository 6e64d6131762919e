"""Health of a host worker: what its parts know of themselves, as answers to the questions of `fleet.health`.

Nothing is asked of anybody for it, neither broker nor Engine: whoever asks costs nothing and waits for nothing. It
needs no heartbeat either, so a worker that announces itself to nobody judges itself by the same rules.
"""

from dataclasses import dataclass
from typing import Protocol

from fleet import health, version
from fleet.contracts.hosts import Availability
from fleet.contracts.presence import PRESENCE_TTL
from fleet.health import HANGS_SECONDS, Check, Health, Question
from workers.host.pulse import Pulse

#: An idle worker hears from the broker every five seconds, and one with a full pool at each heartbeat, every twelve at
#: most; a heartbeat that fails is tried again each second.
_SILENT_SECONDS = 20.0
#: kombu drops a connection whose answer is 30 s late by itself; what lasts longer does not mend itself.
_TAKES_NOTHING_SECONDS = 45.0


class Beat(Protocol):
    def age(self) -> float | None: ...
    def worked(self, name: str) -> float | None: ...


class KnowsDocker(Protocol):
    @property
    def docker_reachable(self) -> bool | None: ...
    @property
    def docker_age(self) -> float | None: ...


class Gate(Protocol):
    availability: Availability


class Stopping(Protocol):
    def begun(self) -> bool: ...
    def overdue_seconds(self) -> float: ...


class Journal(Protocol):
    @property
    def trouble(self) -> str: ...


class Ending(Protocol):
    def __call__(self) -> str | None:
        """Say why the session ends by itself; None where it does not."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a session that has been put together can be judged by."""

    pulse: Pulse
    beat: Beat
    docker: KnowsDocker
    gate: Gate
    stopping: Stopping
    journal: Journal
    ending: Ending


class HostHealth:
    """Looks at one worker, from its start on."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._version = version.current()
        #: why it has ended for good and is here still; None while it has not
        self._stays: str | None = None
        #: None until the session is put together: it may have to wait until a former one elsewhere is over
        self._parts: Parts | None = None

    def watch(self, parts: Parts) -> None:
        self._parts = parts

    def stays(self, why: str) -> None:
        """Take note that it has ended for good, and waits to be told to stop."""
        self._stays = why

    def look(self) -> Health:
        """Say how the worker is; thread-safe."""
        parts = self._parts
        if self._stays is not None:
            checks: tuple[Check, ...] = (
                Check(name="loops", ok=True, text="it waits to be told to stop", counts_for=Question.LIVE),
                Check(name="session", ok=False, text=self._stays),
            )
        elif parts is None:
            checks = (
                Check(name="loops", ok=True, text="it is starting", counts_for=Question.LIVE),
                Check(name="consuming", ok=False, text="it is starting, and takes nothing yet"),
            )
        else:
            checks = (
                _loops(parts),
                _session(parts),
                _broker(parts),
                _consuming(parts),
                _journal(parts),
                _docker(parts),
            )
        availability = parts.gate.availability.value if parts else None
        return Health(part="worker", host=self._host, version=self._version, checks=checks, availability=availability)


def _loops(parts: Parts) -> Check:
    if not parts.stopping.begun():
        ages = {"consumer": parts.pulse.breath_age(), "beat": parts.beat.age()}
        return health.loops(ages, hang_after={})
    # Nothing ticks any more, and that is as it should be for as long as a stop may take.
    late = parts.stopping.overdue_seconds()
    text = f"it should have ended {late:.0f} s ago" if late > 0 else "it is ending"
    return Check(name="loops", ok=late <= 0, text=text, counts_for=Question.LIVE)


def _session(parts: Parts) -> Check:
    ends = parts.ending() or ("it was told to stop" if parts.stopping.begun() else None)
    return Check(name="session", ok=ends is None, text=ends or "it is the worker of this host")


def _broker(parts: Parts) -> Check:
    heard, told = parts.pulse.heard_age(), parts.beat.worked("heartbeat")
    if heard is None:
        return Check(name="broker", ok=False, text="it has not answered yet")
    if heard > _SILENT_SECONDS:
        return Check(name="broker", ok=False, text=f"it has not answered for {heard:.0f} s", age_seconds=heard)
    if told is not None and told > PRESENCE_TTL.total_seconds():
        text = f"it answers, but took no heartbeat for {told:.0f} s: the fleet sees this host as away"
        return Check(name="broker", ok=False, text=text, age_seconds=told)
    return Check(name="broker", ok=True, text=f"it answered {heard:.0f} s ago", age_seconds=heard)


def _consuming(parts: Parts) -> Check:
    age, asked = parts.pulse.age(), parts.pulse.asked_age()
    if parts.stopping.begun():
        return Check(name="consuming", ok=False, text="it takes nothing more", age_seconds=age)
    if age is None:
        return Check(name="consuming", ok=False, text="it takes nothing yet")
    if age > HANGS_SECONDS:
        return Check(name="consuming", ok=False, text=f"its loop has not ticked for {age:.0f} s", age_seconds=age)
    if asked is not None and asked > _TAKES_NOTHING_SECONDS:
        text = f"it has got no answer about new work for {asked:.0f} s"
        return Check(name="consuming", ok=False, text=text, age_seconds=asked)
    if (availability := parts.gate.availability) is not Availability.ACTIVE:
        text = f"its loop ticks; it is {availability.value}, and takes no new work until it is resumed"
    else:
        text = "it takes what is pushed to this host"
    return Check(name="consuming", ok=True, text=text, age_seconds=age)


def _journal(parts: Parts) -> Check:
    trouble = parts.journal.trouble
    return Check(
        name="journal", ok=not trouble, text=f"it cannot be written ({trouble})" if trouble else "it is written"
    )


def _docker(parts: Parts) -> Check:
    reachable = parts.docker.docker_reachable
    said = {True: "the Engine answers", False: "the Engine does not answer", None: "the Engine has not been asked yet"}
    return Check(
        name="docker",
        ok=reachable is True,
        text=said[reachable],
        age_seconds=parts.docker.docker_age,
        counts_for=Question.READY,
    )
