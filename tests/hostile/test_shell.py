"""The shell under attack: nothing but what the policy lists ever runs, and what runs is what was checked.

Every attack would make a canary file. Each is refused, recorded, and the next good command runs at once.
"""

import stat
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet import errors
from fleet.contracts import shell
from tests.services.office import fleet_of, office, rule, session_of, standing
from tests.services.system import System
from tests.services.waiting import until

__all__ = ["office", "standing"]

pytestmark = [pytest.mark.xdist_group("approvals")]

#: Longer than it takes to have 64 commands begin on a busy machine, in seconds.
SLEPT = "290"
#: What a name in the environment could do, and a value that would make the canary by it.
CARRIERS = (
    "PATH",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "BASH_ENV",
    "ENV",
    "IFS",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PERL5OPT",
    "RUBYOPT",
    "NODE_OPTIONS",
    "GIT_SSH_COMMAND",
    "GIT_PAGER",
    "DOCKER_CONFIG",
    "DOCKER_HOST",
    "PAGER",
    "EDITOR",
    "HOME",
    "FLEET_BROKER_URL",
)


class Attack:
    """What an attacker asks of a host, and the canary that must never sing."""

    def __init__(self, fleet: System, directory: Path) -> None:
        self.fleet = fleet
        self.canary = directory / "canary"
        self.directory = directory

    def asks(self, *argv: str, **more: Any) -> Any:
        with fleet_of(self.fleet, "alice") as fleet:
            [outcome] = fleet.push("fleet.shell.run", on="h1", arguments={"argv": list(argv), **more}).wait(timeout=60)
        return outcome

    def is_denied(self, *argv: str, **more: Any) -> None:
        """Ask, and see that it is refused by the host, on record, without an effect; the next good one runs."""
        outcome = self.asks(*argv, **more)
        assert isinstance(outcome.error, errors.TaskRejected), outcome
        assert outcome.error.reason == "not_in_allow_list"
        recorded = session_of(self.fleet, outcome.run_id)
        assert recorded.decision == "deny"
        assert not self.canary.exists()
        self.works()

    def works(self) -> None:
        outcome = self.asks("uptime")
        assert outcome.reply is not None, outcome
        assert outcome.reply["exit_code"] == 0


@pytest.fixture
def attack(office: System, tmp_path: Path) -> Attack:
    served = tmp_path / "served"
    served.mkdir()
    (served / "log").write_text("a line\n")
    script = tmp_path / "show-environment"
    script.write_text("#!/bin/sh\nenv\n")
    script.chmod(0o755)
    rule(
        office,
        f"""
[[commands]]
name = "uptime"
risk = "reads"
argv = ["/usr/bin/uptime"]
[[commands]]
name = "list"
risk = "reads"
argv = ["/bin/ls", {{ path = "{served}" }}]
[[commands]]
name = "environment"
risk = "reads"
argv = ["{script}"]
env = {{ LANG = ["C"] }}
[[commands]]
name = "forks away"
risk = "reads"
argv = ["/bin/sh", "{tmp_path / "fork.sh"}"]
[[commands]]
name = "sleeps"
risk = "reads"
argv = ["/bin/sleep", {{ integer = [1, 600] }}]
""",
    )
    return Attack(office, tmp_path)


@pytest.mark.parametrize(
    "spelled",
    [
        "ls\n",
        "ls;touch {canary}",
        "ls && touch {canary}",
        "$(touch {canary})",
        "`touch {canary}`",
        "ls|touch {canary}",
        "ｌｓ",
        "ls\u200b",
        "LS",
        "./ls",
        "/bin/../bin/ls",
        "//bin/ls",
        "/usr/bin/touch",
        "bash",
        "sh",
        "busybox",
    ],
)
def test_a_program_by_another_spelling_is_none_that_is_listed(attack: Attack, spelled: str) -> None:
    attack.is_denied(spelled.format(canary=attack.canary), str(attack.directory / "served"))


@pytest.mark.parametrize(
    "spelled",
    [
        "{served}\n",
        "{served};touch {canary}",
        "{served}/../canary",
        "{served}/./log",
        "{served}//log",
        "{served}/",
        "$(touch {canary})",
        "-la",
        "--color",
        "served",
        "/",
        "",
        "{served}\u202e",
        "{served}\x1b[2J",
        "／etc",
    ],
)
def test_an_argument_by_another_spelling_is_none_that_is_listed(attack: Attack, spelled: str) -> None:
    attack.is_denied("ls", spelled.format(canary=attack.canary, served=attack.directory / "served"))


def test_one_argument_more_or_less_is_another_command(attack: Attack) -> None:
    attack.is_denied("ls")
    attack.is_denied("ls", str(attack.directory / "served"), str(attack.directory / "served"))
    attack.is_denied("uptime", "-V")


@pytest.mark.parametrize("argument", ["a\0b", "\ud800"])
def test_what_no_program_can_be_given_is_refused_where_it_is_written(attack: Attack, argument: str) -> None:
    with pytest.raises(errors.InvalidArguments, match="argv"):
        attack.asks("ls", argument)


@pytest.mark.parametrize("name", CARRIERS)
def test_no_variable_that_makes_a_program_run_another_can_be_given(attack: Attack, name: str) -> None:
    attack.is_denied(str(attack.directory / "show-environment"), env={name: str(attack.canary)})


def test_no_policy_can_grant_such_a_variable(attack: Attack) -> None:
    from fleet import policy

    for name in set(CARRIERS):
        text = f'[[commands]]\nname = "x"\nrisk = "reads"\nargv = ["/bin/ls"]\nenv = {{ {name} = ["x"] }}\n'
        with pytest.raises(errors.SettingsInvalid, match=name):
            policy.parse(text)


def test_nothing_of_the_workers_environment_reaches_a_command(office: System, attack: Attack) -> None:
    outcome = attack.asks(str(attack.directory / "show-environment"), env={"LANG": "C"})
    said = dict(line.split("=", 1) for line in outcome.reply["stdout"].splitlines())
    assert set(said) <= {"PATH", "HOME", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}
    assert said["LANG"] == "C"
    assert str(attack.directory) not in said["PATH"]


def test_a_directory_that_is_not_granted_is_denied(attack: Attack) -> None:
    attack.is_denied("uptime", cwd="/tmp")


def test_a_link_that_leads_out_of_a_granted_directory_is_not_followed(attack: Attack) -> None:
    secret = attack.directory / "secret"
    secret.mkdir()
    (secret / "password").write_text("hunter2")
    (attack.directory / "served" / "way-out").symlink_to(secret)
    outcome = attack.asks("ls", str(attack.directory / "served" / "way-out"))
    assert outcome.error is not None
    assert "password" not in str(outcome)
    attack.works()


def test_a_child_that_forks_away_does_not_outlive_its_command(attack: Attack) -> None:
    mark = f"{attack.directory}/still-here"
    (attack.directory / "fork.sh").write_text(
        f"setsid /bin/sh -c 'trap \"\" TERM HUP; sleep 100; touch {attack.canary}; : {mark}' >/dev/null 2>&1 &\n"
        "sleep 0.2\n"
    )
    outcome = attack.asks("sh", str(attack.directory / "fork.sh"))
    assert outcome.reply["exit_code"] == 0
    assert not [each for each in psutil.process_iter(["cmdline"]) if mark in " ".join(each.info["cmdline"] or ())]


def test_a_command_and_all_it_forked_end_by_the_time_limit(attack: Attack) -> None:
    mark = f"{attack.directory}/never-ends"
    (attack.directory / "fork.sh").write_text(
        f"trap '' TERM\n"
        f"(trap '' TERM; setsid sh -c 'sleep 500; : {mark}') &\n"
        f"setsid sh -c 'sleep 500; : {mark}' &\n"
        "while :; do sleep 1; done\n"
    )
    with fleet_of(attack.fleet, "alice") as fleet:
        asked = {"argv": ["sh", str(attack.directory / "fork.sh")]}
        [outcome] = fleet.push("fleet.shell.run", on="h1", arguments=asked, time_limit=1.0).wait(timeout=60)
    assert getattr(outcome.error, "kind", "") == "time_limit"
    assert not [each for each in psutil.process_iter(["cmdline"]) if mark in " ".join(each.info["cmdline"] or ())]
    attack.works()


def test_no_time_beyond_what_the_policy_grants(attack: Attack) -> None:
    limit = shell.LONGEST_LIMIT.total_seconds()
    with fleet_of(attack.fleet, "alice") as fleet:
        batch = fleet.push("fleet.shell.run", on="h1", arguments={"argv": ["uptime"]}, time_limit=limit + 1)
        [outcome] = batch.wait(timeout=60)
    assert isinstance(outcome.error, errors.TaskRejected)
    assert outcome.error.reason == "not_in_allow_list"


def test_a_program_that_somebody_else_may_change_is_not_run(attack: Attack) -> None:
    script = attack.directory / "show-environment"
    script.chmod(script.stat().st_mode | stat.S_IWOTH)
    outcome = attack.asks(str(script))
    assert getattr(outcome.error, "kind", "") == "unsafe_program"
    attack.works()


def test_sixty_four_commands_at_once_run_side_by_side_and_the_heart_beats_on(attack: Attack) -> None:
    lapses: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if attack.fleet.heartbeat("h1") is None:
                lapses.append("no heartbeat")

    slept = {"argv": ["sleep", SLEPT]}
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with fleet_of(attack.fleet, "alice") as fleet:
            batches = [fleet.push("fleet.shell.run", on="h1", arguments=slept) for _ in range(64)]
            until(lambda: _sleepers() >= 64, "64 run at once", timeout=60)
            for batch in batches:
                batch.cancel()
            states = {outcome.state for batch in batches for outcome in batch.wait(timeout=60)}
    finally:
        over.set()
        watcher.join()
    assert states == {"cancelled"}
    assert lapses == []
    until(lambda: _sleepers() == 0, "nothing is left of them")
    attack.works()


def _sleepers() -> int:
    return len([each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["/bin/sleep", SLEPT]])
