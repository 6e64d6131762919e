"""Health: what counts for which question, and how a worker and a control worker are judged by what they know."""

from dataclasses import dataclass, field, replace

import pytest

from fleet import health
from fleet.contracts.hosts import Availability
from fleet.health import Check, Health, Question
from workers.control.health import ControlHealth
from workers.control.health import Parts as ControlParts
from workers.control.ingest import Trouble
from workers.host.health import HostHealth
from workers.host.health import Parts as HostParts

ALL = set(Question)
NONE: set[Question] = set()


def yes(found: Health) -> set[Question]:
    return {question for question in Question if found.answers(question)}


def failing(found: Health) -> list[str]:
    return [check.name for check in found.checks if not check.ok]


@dataclass(kw_only=True)
class Known:
    """What the parts of a worker say of themselves; as it is, all is well."""

    age_seconds: float | None = 0.5
    breath: float | None = 0.5
    asked: float | None = 1.0
    heard: float | None = 1.0
    beat_age: float | None = 3.0
    heartbeat: float | None = 3.0
    docker_reachable: bool | None = True
    docker_age: float | None = 2.0
    availability: Availability = Availability.ACTIVE
    stops: bool = False
    late: float = 0.0
    trouble: str = ""
    ends: str | None = None
    lease: bool = True
    records_nothing: Trouble | None = None
    ages: dict[str, float | None] = field(default_factory=dict)
    worked_at: dict[str, float | None] = field(default_factory=dict)

    def breath_age(self) -> float | None:
        return self.breath

    def asked_age(self) -> float | None:
        return self.asked

    def heard_age(self) -> float | None:
        return self.heard

    def begun(self) -> bool:
        return self.stops

    def overdue_seconds(self) -> float:
        return self.late

    def held(self) -> bool:
        return self.lease

    def trouble_of_ingest(self) -> Trouble | None:
        return self.records_nothing


class Pulse:
    def __init__(self, known: Known) -> None:
        self.age = lambda: known.age_seconds
        self.breath_age, self.asked_age, self.heard_age = known.breath_age, known.asked_age, known.heard_age


class Beat:
    def __init__(self, age: float | None, worked: dict[str, float | None]) -> None:
        self._age, self._worked = age, worked

    def age(self) -> float | None:
        return self._age

    def worked(self, name: str) -> float | None:
        return self._worked.get(name)


class Ingest:
    def __init__(self, known: Known) -> None:
        self.trouble = known.trouble_of_ingest


def host(known: Known) -> Health:
    return judge(known).look()


def judge(known: Known) -> HostHealth:
    judged = HostHealth("h1")
    judged.watch(
        HostParts(
            pulse=Pulse(known),  # type: ignore[arg-type]
            beat=Beat(known.beat_age, {"heartbeat": known.heartbeat}),
            docker=known,
            gate=known,
            stopping=known,
            journal=known,
            ending=lambda: known.ends,
        )
    )
    return judged


def control(known: Known) -> Health:
    ages = {"beat": 1.0, "slow-beat": 1.0, "ingest": 0.1, "enrollment": 0.3, **known.ages}
    worked = {"lease": 1.0, "database": 2.0, **known.worked_at}
    judged = ControlHealth()
    judged.watch(
        ControlParts(
            beat=Beat(known.beat_age, worked),
            database_beat=Beat(known.beat_age, worked),
            lease=known,
            ingest=Ingest(known),
            ages={name: lambda age=age: age for name, age in ages.items()},  # type: ignore[misc]
        )
    )
    return judged.look()


@pytest.mark.parametrize(
    ("known", "answers", "wrong"),
    [
        (Known(), ALL, []),
        (Known(docker_reachable=False), {Question.LIVE, Question.HEALTHY}, ["docker"]),
        (Known(docker_reachable=None), {Question.LIVE, Question.HEALTHY}, ["docker"]),
        (Known(age_seconds=31, breath=31), NONE, ["loops", "consuming"]),
        # away from the broker, and trying: nobody gains by ending it
        (Known(age_seconds=31, heard=31), {Question.LIVE}, ["broker", "consuming"]),
        (Known(age_seconds=None, breath=None), {Question.LIVE}, ["consuming"]),
        (Known(asked=46), {Question.LIVE}, ["consuming"]),
        (Known(heard=21), {Question.LIVE}, ["broker"]),
        (Known(heard=None), {Question.LIVE}, ["broker"]),
        (Known(heartbeat=36), {Question.LIVE}, ["broker"]),
        # one that announces itself to nobody has no heartbeats
        (Known(heartbeat=None), ALL, []),
        (Known(beat_age=31), NONE, ["loops"]),
        (Known(trouble="disk full"), {Question.LIVE}, ["journal"]),
        (Known(ends="another session has taken over this host"), {Question.LIVE}, ["session"]),
        # a stop may take hours, and nothing ticks then
        (Known(stops=True, breath=3600, age_seconds=3600, beat_age=50), {Question.LIVE}, ["session", "consuming"]),
        (Known(stops=True, late=1), NONE, ["loops", "session", "consuming"]),
    ],
)
def test_a_worker_is_judged_by_what_its_parts_know(known: Known, answers: set[Question], wrong: list[str]) -> None:
    found = host(known)
    assert yes(found) == answers
    assert sorted(failing(found)) == sorted(wrong)


@pytest.mark.parametrize("availability", [Availability.PAUSED, Availability.DRAINING])
def test_a_host_that_takes_nothing_because_somebody_wants_it_so_is_ready_and_says_so(
    availability: Availability,
) -> None:
    found = host(Known(availability=availability))
    assert yes(found) == ALL
    wire = found.to_wire()
    assert wire["availability"] == availability.value
    assert any(f"it is {availability.value}" in check["text"] for check in wire["checks"])


def test_a_worker_that_has_ended_for_good_and_stays_is_live_and_nothing_more() -> None:
    judged = judge(Known(stops=True, late=3600, breath=3600))
    judged.stays("the host was put out of the fleet")
    found = judged.look()
    assert yes(found) == {Question.LIVE}
    assert [check.text for check in found.checks if not check.ok] == ["the host was put out of the fleet"]


def test_a_worker_that_waits_for_its_turn_is_live_and_nothing_more() -> None:
    assert yes(HostHealth("h1").look()) == {Question.LIVE}


@pytest.mark.parametrize(
    ("known", "answers", "wrong"),
    [
        (Known(), ALL, []),
        (Known(lease=False), ALL, []),
        (Known(lease=False, worked_at={"lease": 11.0}), {Question.LIVE}, ["broker", "lease"]),
        (Known(lease=False, worked_at={"lease": None}), {Question.LIVE}, ["broker", "lease"]),
        (Known(worked_at={"database": 16.0}), {Question.LIVE}, ["database"]),
        (Known(worked_at={"database": None}), {Question.LIVE}, ["database"]),
        (Known(ages={"ingest": 31.0}), {Question.LIVE}, ["ingest"]),
        (Known(ages={"ingest": 121.0}), NONE, ["loops", "ingest"]),
        (Known(records_nothing=Trouble(seconds=29.0, reason="disk full")), ALL, []),
        (Known(records_nothing=Trouble(seconds=31.0, reason="disk full")), {Question.LIVE}, ["ingest"]),
        (Known(records_nothing=Trouble(seconds=3600.0, reason="disk full")), {Question.LIVE}, ["ingest"]),
        (Known(ages={"enrollment": 31.0}), {Question.LIVE}, ["enrollment"]),
        (Known(ages={"ingest": None}), {Question.LIVE}, ["ingest"]),
        (Known(ages={"slow-beat": 299.0}), ALL, []),
        (Known(ages={"slow-beat": 301.0}), NONE, ["loops"]),
    ],
)
def test_a_control_worker_is_judged_by_what_its_loops_know(
    known: Known, answers: set[Question], wrong: list[str]
) -> None:
    found = control(known)
    assert yes(found) == answers
    assert sorted(failing(found)) == sorted(wrong)


def test_a_control_worker_that_records_nothing_says_for_how_long_and_why() -> None:
    found = control(Known(records_nothing=Trouble(seconds=40.0, reason="the database has no space left on its disk")))
    [check] = [check for check in found.checks if not check.ok]
    assert check.text == "it has recorded nothing for 40 s: the database has no space left on its disk"
    assert check.age_seconds == 40.0


def test_a_control_worker_that_waits_for_its_broker_or_ends_is_live_and_nothing_more() -> None:
    judged = ControlHealth()
    assert yes(judged.look()) == {Question.LIVE}
    judged.ending()
    assert yes(judged.look()) == {Question.LIVE}


def test_the_name_of_what_hangs_is_told() -> None:
    check = health.loops({"ingest": 40.0, "beat": 1.0}, hang_after={})
    assert (check.ok, check.text, check.age_seconds) == (False, "ingest has not ticked for 40 s", 40.0)


def test_a_question_includes_the_lesser_ones() -> None:
    well = Check(name="a", ok=True, text="")
    found = Health(part="worker", version="1", checks=(well, replace(well, ok=False, counts_for=Question.LIVE)))
    assert yes(found) == NONE
