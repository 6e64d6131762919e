"""Steps: events as lines for people."""

from fleet.cli import steps


def test_a_step_tells_its_moments_as_a_date() -> None:
    assert steps.brief({"approve_before": 1_750_000_001.5, "attempt": 1}).startswith("approve_before=2025-06-15 ")
