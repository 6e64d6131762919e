"""Containers: what the Engine lists, in Fleet's words."""

from datetime import UTC, datetime

import pytest

from fleet.contracts.containers import Port
from workers.host.containers.listing import from_summary, started_at

SUMMARY = {
    "Id": "a" * 64,
    "Names": ["/other/alias", "/web"],
    "Image": "nginx:1.27",
    "State": "running",
    "Status": "Up 3 minutes (healthy)",
    "Created": 1_750_000_000,
    "Labels": {"app": "shop"},
    "Ports": [
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ],
}


def test_a_summary_becomes_a_container() -> None:
    container = from_summary(SUMMARY)
    assert (container.name, container.image, container.state) == ("web", "nginx:1.27", "running")
    assert container.health == "healthy"
    assert container.created == datetime(2025, 6, 15, 15, 6, 40, tzinfo=UTC)
    assert container.ports == (
        Port(container_port=53, protocol="udp"),
        Port(container_port=80, host_ip="0.0.0.0", host_port=8080),
        Port(container_port=80, host_ip="::", host_port=8080),
    )


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 2 hours", None),
        ("Up 2 hours (unhealthy)", "unhealthy"),
        ("Up 1 second (health: starting)", "starting"),
        ("Up 2 hours (Paused)", None),
        ("Exited (0) 3 days ago", None),
        ("", None),
    ],
)
def test_health_stands_at_the_end_of_the_status(status: str, health: str | None) -> None:
    assert from_summary({**SUMMARY, "Status": status}).health == health


def test_what_the_engine_leaves_out_is_empty() -> None:
    container = from_summary(
        {"Id": "b" * 64, "Created": 0, "Names": None, "Labels": None, "Ports": None, "State": "removing"}
    )
    assert (container.name, container.labels, container.ports, container.health) == ("", {}, (), None)


def test_a_container_that_never_ran_has_no_start() -> None:
    assert started_at({"State": {"StartedAt": "0001-01-01T00:00:00Z"}}) is None
    assert started_at({"State": {"StartedAt": "2026-11-21T07:00:00.123456789Z"}}) == datetime(
        2026, 11, 21, 7, 0, 0, 123456, tzinfo=UTC
    )
