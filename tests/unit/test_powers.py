"""Powers: what a worker's owner reads at its start, and programs as fields."""

from pathlib import Path

import pytest

from fleet import powers
from fleet.settings import Settings


@pytest.mark.parametrize(
    ("shell", "policy", "said"),
    [
        (False, 3, "no commands and no files, which are switched off here whatever is pushed"),
        (True, 0, "no policy of the fleet is here, so everything is denied"),
        (True, 3, "commands and files that version 3 of the fleet's policy lists, and no others"),
        (True, None, "commands and files that the fleet's policy lists, and no others"),
    ],
)
def test_people_read_what_the_fleet_may_do_and_that_it_is_recorded(
    *, shell: bool, policy: int | None, said: str
) -> None:
    text = powers.of(Settings(shell=shell, docker_url="unix:///d.sock"), policy=policy).text("h1")
    assert said in text
    assert "h1" in text
    assert "unix:///d.sock" in text
    assert "as much as root may do" in text
    assert text.endswith("is recorded in the fleet's audit.")
    assert "\n" not in text


def test_what_the_owners_policy_switches_off_is_not_said_to_be_on(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[shell]\nenabled = false\n")
    given = powers.of(Settings(docker_url="unix:///d.sock", policy_file=path), policy=3)
    assert not given.shell
    assert "no commands and no files" in given.text("h1")


def test_programs_get_fields() -> None:
    given = powers.of(Settings(shell=False, docker_url="unix:///d.sock"), policy=2)
    assert given.fields() == {"docker": "unix:///d.sock", "shell": False, "policy": 2, "recorded": True}
