"""Several hosts, some on a real Engine and some without any, for a module's tests of commands.

A module that uses one of these fleets is an `xdist_group` of its own, or the fleet is started for each process.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from fleet import db
from tests.services.broker import serve
from tests.services.private_engine import PrivateEngine
from tests.services.system import NO_DOCKER, System


@contextmanager
def fleet_of(
    hosts: Mapping[str, Mapping[str, str]], paths: pytest.TempPathFactory, engines: Mapping[str, PrivateEngine]
) -> Iterator[System]:
    """Give a fleet of these hosts, by name with their labels; those that have an Engine are in `engines`, too."""
    directory = paths.mktemp("several")
    url = f"sqlite:///{directory / 'fleet.db'}"
    engine = db.open_engine(url)
    db.migrate(engine)
    with contextmanager(serve)("valkey", paths.mktemp("several-valkey")) as broker:
        started = System(directory, broker, url, engine)
        started.start_control()
        for host, labels in hosts.items():
            started.enroll(host, labels=labels)
            started.start_worker(host, FLEET_DOCKER_URL=engines[host].url if host in engines else NO_DOCKER)
        yield started
        started.end()
    engine.dispose()


@pytest.fixture(scope="module")
def fleet_of_three(tmp_path_factory: pytest.TempPathFactory, session_engine: PrivateEngine) -> Iterator[System]:
    """The workers of edge-7 and edge-8, on one Engine, and of bare, which has none."""
    hosts = {"edge-7": {"kind": "edge"}, "edge-8": {"kind": "edge"}, "bare": {"kind": "bare"}}
    with fleet_of(hosts, tmp_path_factory, {"edge-7": session_engine, "edge-8": session_engine}) as started:
        yield started
