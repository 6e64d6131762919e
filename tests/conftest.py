"""Fixtures of all tests come from the modules named here, those that others import first.

`make test` deals the tests out to a few processes, each of which has servers of its own. Tests of one `xdist_group`
follow each other in one process: those that measure time (`deadlines`), and those that share what is dear to make
(`wheelhouse`).
"""

import pytest

pytest_plugins = (
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
    "tests.services.three_hosts",
    "tests.services.locked",
    "tests.services.sessions",
    "tests.services.proxy",
    "tests.services.recorded_engine",
    "tests.services.registry",
    "tests.services.offered",
    "tests.hostile.siege",
)

#: A test of both brokers and both databases runs on these pairs: each of the four, and half the time.
_PAIRS = frozenset({("valkey", "sqlite"), ("redis", "postgresql")})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen, left = [], []
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        pair = (given.get("any_broker"), given.get("backend"))
        (left if None not in pair and pair not in _PAIRS else chosen).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = chosen
