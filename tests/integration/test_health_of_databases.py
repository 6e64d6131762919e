"""A control worker whose database gives no answer says so at once to whoever asks, and goes on."""

import pytest
from sqlalchemy import text

from tests.services import asking
from tests.services.system import System
from tests.services.waiting import until


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_database_that_gives_no_answer_is_seen_and_holds_up_nobody_who_asks(system: System) -> None:
    control = system.start_control()
    found = asking.listening(system)
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready")
    with system.engine.begin() as somebody:
        somebody.execute(text("LOCK TABLE fleet_version IN ACCESS EXCLUSIVE MODE"))
        until(lambda: asking.wrong(found) == ["database"], "it misses its database", timeout=60)
        assert asking.ask(found, "/health/live")[0] == 200, "to end it would mend nothing"
        done = system.command("health", "control", "--ready")
        assert done.returncode == 1
        assert "it has not answered for" in done.stdout
    until(lambda: asking.ask(found, "/health/ready")[0] == 200, "it is ready again", timeout=60)
    assert control.stop() == 0
