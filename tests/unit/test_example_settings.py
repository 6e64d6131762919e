"""The annotated example is the documentation of the settings: it names each, with its true default."""

import re
import tomllib
from typing import Any

import pytest

from fleet import services
from fleet.settings import Settings

#: Settings without one default: their lines are examples.
WITHOUT_DEFAULT = {name for name, field in Settings.model_fields.items() if field.default is None} | {"state_dir"}


@pytest.fixture
def example() -> dict[str, Any]:
    """The example with every setting uncommented."""
    text = services.config_file("fleet.example.toml").read_text(encoding="utf-8")
    return tomllib.loads("\n".join(re.findall(r"^# (\w+ = .*)$", text, re.MULTILINE)))


def test_it_names_every_setting_and_no_other(example: dict[str, Any]) -> None:
    assert sorted(example) == sorted(Settings.model_fields)


def test_every_value_is_one_that_fleet_takes(example: dict[str, Any]) -> None:
    assert Settings(**example).host_id == "edge-7"


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - WITHOUT_DEFAULT))
def test_a_value_is_the_default(example: dict[str, Any], name: str) -> None:
    assert getattr(Settings(**{name: example[name]}), name) == Settings.model_fields[name].default


def test_all_of_it_is_commented_out() -> None:
    text = services.config_file("fleet.example.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == {}
