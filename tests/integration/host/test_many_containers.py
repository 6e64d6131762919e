"""Five hundred containers on one host: one list call a sync, and only changed rows on the wire."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from fleet.contracts.reports import Kind
from tests.services.recorded_engine import RecordedEngine
from tests.services.waiting import until
from workers.host.containers.engine import Engine
from workers.host.containers.inventory import InventoryWatch


class Told:
    """What the watch publishes and reports."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.reports: list[tuple[Kind, dict[str, Any]]] = []

    def publish(self, found: tuple[Any, ...]) -> None:
        self.published.append(len(found))

    def report(self, kind: Kind, data: dict[str, Any]) -> None:
        self.reports.append((kind, data))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watch(engine_of_500: RecordedEngine, told: Told) -> Iterator[InventoryWatch]:
    engine = Engine(engine_of_500.url)
    made = InventoryWatch(engine, publish=told.publish, report=told.report, interval=timedelta(hours=1))
    made.start()
    yield made
    engine_of_500.over.set()
    made.stop()
    engine.close()


def test_a_sync_is_one_list_call_and_tells_what_has_changed_alone(
    engine_of_500: RecordedEngine, watch: InventoryWatch, told: Told
) -> None:
    asked = engine_of_500.asked

    def sync() -> None:
        before = len(told.published)
        watch.sync_now()
        until(lambda: len(told.published) > before, "a sync")

    def is_quiet() -> bool:
        before = asked.copy(), len(told.published)
        watch.stopped.wait(0.5)  # longer than a burst takes to settle
        return (asked, len(told.published)) == before

    until(lambda: told.published and asked["/events"], "the first look, and the event stream")
    sync()  # starts are remembered from here on
    until(is_quiet, "all looks are over that the beginning calls for")
    lists, inspects = asked["/containers/json"], asked["/containers/ID/json"]
    assert told.reports[0][0] is Kind.INVENTORY_SYNCED
    assert len(told.reports[0][1]["containers"]) == 500
    engine_of_500.containers[7] = {**engine_of_500.containers[7], "State": "paused", "Status": "Up 3 hours (Paused)"}
    gone = engine_of_500.containers.pop()
    engine_of_500.containers[9]["Status"] = "Up 4 hours"  # time passes, and nothing has changed
    reported = len(told.reports)
    sync()
    assert asked["/containers/json"] == lists + 1
    assert asked["/containers/ID/json"] == inspects, "what is known is not asked for again"
    ((kind, data),) = told.reports[reported:]
    assert kind is Kind.INVENTORY_CHANGED
    assert [row["name"] for row in data["changed"]] == ["web-7"]
    assert data["removed"] == [gone["Id"]]
    assert len(json.dumps(data)) < 1000
    assert told.published[-1] == 499
    sync()
    assert len(told.reports) == reported + 1, "and then nothing is told"
