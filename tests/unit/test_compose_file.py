"""compose.yaml, as far as it can be judged without an Engine; tests/e2e/test_compose.py brings it up."""

from pathlib import Path
from typing import Any

import pytest
import yaml

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())[
    "services"
]


def test_a_host_that_was_put_out_of_the_fleet_is_not_started_for_ever() -> None:
    assert SERVICES["host"]["restart"] == "unless-stopped"
    assert SERVICES["host"]["environment"]["FLEET_STAY_WHEN_ENDED"] == "true"


@pytest.mark.parametrize("service", SERVICES)
def test_the_log_of_every_service_is_bounded(service: str) -> None:
    """The Engine keeps every line for ever where nobody says otherwise."""
    assert SERVICES[service]["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
