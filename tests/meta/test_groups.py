"""Groups of tests stay in one process, or each of them would make anew what they share."""

import pytest


@pytest.mark.xdist_group("these")
def test_this_pytest_and_this_xdist_know_the_same_groups(request: pytest.FixtureRequest) -> None:
    shared_by_groups = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@these") or not shared_by_groups
