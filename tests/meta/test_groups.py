"""Groups of tests stay in one process, or those that measure time would do so beside each other."""

import pytest


@pytest.mark.xdist_group("deadlines")
def test_this_pytest_and_this_xdist_know_the_same_groups(request: pytest.FixtureRequest) -> None:
    shared_by_groups = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@deadlines") or not shared_by_groups
