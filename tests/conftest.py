"""Fixtures of all tests come from the modules named here, those that others import first.

`make test` deals the tests out to a few processes, each of which has servers of its own. Tests of one `xdist_group`
follow each other in one process: they share what is dear to make (`wheelhouse`), or take the machine (`chaos`).
"""

import hypothesis
import pytest

# How long it takes to make up examples says something of the machine, and nothing of what is tested.
hypothesis.settings.register_profile("fleet", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None)
hypothesis.settings.load_profile("fleet")

pytest_plugins = (
    "tests.services.forks",
    "tests.services.signals",
    "tests.services.availability",
    "tests.services.waiting",
    "tests.services.database",
    "tests.services.broker",
    "tests.services.tls",
    "tests.services.browser",
    "tests.services.docker",
    "tests.services.memory",
    "tests.services.wheels",
    "tests.services.system",
    "tests.services.rest",
    "tests.services.three_hosts",
    "tests.services.locked",
    "tests.services.sessions",
    "tests.services.proxy",
    "tests.services.recorded_engine",
    "tests.services.registry",
    "tests.services.offered",
    "tests.services.reader",
    "tests.hostile.siege",
)

#: A test of both brokers and both databases runs on these pairs: each of the four, and half the time.
_PAIRS = frozenset({("valkey", "sqlite"), ("redis", "postgresql")})


#: Fleets that a module's tests share: dealt out to all processes, each of these would be made four times.
_SHARED = frozenset({"besieged"})


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups afterwards
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen, left = [], []
    for item in items:
        if _SHARED.intersection(getattr(item, "fixturenames", ())) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        pair = (given.get("any_broker"), given.get("backend"))
        (left if None not in pair and pair not in _PAIRS else chosen).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = chosen
