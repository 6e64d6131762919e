"""Three hosts: two on one real Engine, and one without any, for a module's tests of commands."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fleet import db
from tests.services.broker import serve
from tests.services.private_engine import PrivateEngine
from tests.services.system import NO_DOCKER, System


@pytest.fixture(scope="module")
def fleet_of_three(tmp_path_factory: pytest.TempPathFactory, session_engine: PrivateEngine) -> Iterator[System]:
    """The workers of edge-7 and edge-8, on one Engine, and of bare, which has none."""
    directory = tmp_path_factory.mktemp("three")
    url = f"sqlite:///{directory / 'fleet.db'}"
    engine = db.open_engine(url)
    db.migrate(engine)
    with contextmanager(serve)("valkey", tmp_path_factory.mktemp("three-valkey")) as broker:
        started = System(directory, broker, url, engine)
        started.start_control()
        for host, kind in (("edge-7", "edge"), ("edge-8", "edge"), ("bare", "bare")):
            started.enroll(host, labels={"kind": kind})
            started.start_worker(host, FLEET_DOCKER_URL=session_engine.url if kind == "edge" else NO_DOCKER)
        yield started
        started.end()
    engine.dispose()
