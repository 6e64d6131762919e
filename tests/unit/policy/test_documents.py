"""Policy documents: every mistake is an error that names its place, and no text whatever is anything worse."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import errors, policy, services
from fleet.policy import fleets, host

COMMAND = '[[commands]]\nname = "it"\nrisk = "reads"\nargv = ["/bin/df"]\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[approval]\n", "approval: there is no such key, did you mean 'approvals'?"),
        (
            '[approvals]\napprove_with = "1h"',
            "approvals.approve_with: there is no such key, did you mean 'approve_within'",
        ),
        (COMMAND + 'argvs = ["x"]', "commands.0.argvs: there is no such key, did you mean 'argv'?"),
        (
            '[[rules]]\nname = "r"\ndecision = "deny"\nlevel = ["intern"]',
            "rules.0.level: there is no such key, did you mean",
        ),
        (
            '[[files]]\nname = "f"\nroot = "/srv"\nmay = ["get"]\nmost_byte = 1',
            "files.0.most_byte: there is no such key",
        ),
        ("[containers]\nprivileged = true", "containers: there is no such key"),
        ("[shell]\nenabled = true", "shell: there is no such key"),
        ('[[commands]]\nname = "it"\nargv = ["/bin/df"]', "commands.0.risk: is missing"),
        ('[[commands]]\nname = "it"\nrisk = "looks"\nargv = ["/bin/df"]', "commands.0.risk: Input should be 'reads'"),
        (COMMAND.replace("/bin/df", "df"), "commands.0.argv: the program is an absolute path"),
        (COMMAND.replace("/bin/df", "/bin/../df"), "commands.0.argv: the program is an absolute path"),
        (COMMAND.replace("/bin/df", "/bin//df"), "commands.0.argv: the program is an absolute path"),
        (COMMAND.replace('"/bin/df"', '{ path = "/bin" }'), "commands.0.argv: the program is an absolute path"),
        (COMMAND.replace('"/bin/df"', ""), "commands.0.argv: Tuple should have at least 1 item"),
        (
            COMMAND.replace('f"]', 'f", { pth = "/srv" }]'),
            "commands.0.argv.1: there is no pattern 'pth', did you mean 'path'?",
        ),
        (COMMAND.replace('f"]', 'f", { glob = "*" }]'), "commands.0.argv.1: there is no pattern 'glob'"),
        (COMMAND.replace('f"]', 'f", { enum = [] }]'), "enum takes a list of at least one text"),
        (COMMAND.replace('f"]', 'f", { enum = [1] }]'), "an argument is a text"),
        (COMMAND.replace('f"]', 'f", { integer = [2, 1] }]'), "integer takes [least, most]"),
        (COMMAND.replace('f"]', 'f", { integer = [-1, 1] }]'), "integer takes [least, most]"),
        (COMMAND.replace('f"]', 'f", { integer = [false, true] }]'), "integer takes [least, most]"),
        (COMMAND.replace('f"]', 'f", { integer = 7 }]'), "integer takes [least, most]"),
        (COMMAND.replace('f"]', 'f", { word = false }]'), "write { word = true }"),
        (COMMAND.replace('f"]', 'f", { container = 1 }]'), "write { container = true }"),
        (COMMAND.replace('f"]', 'f", { path = "srv" }]'), "write an absolute path without"),
        (COMMAND.replace('f"]', 'f", { path = "/srv/" }]'), "write an absolute path without"),
        (COMMAND.replace('f"]', 'f", { path = "/", word = true }]'), "a table with one of"),
        (COMMAND.replace('f"]', 'f", 7]'), "commands.0.argv.1: a pattern is a text, or a table"),
        (COMMAND + 'cwd = ["/srv/../etc"]', "commands.0.cwd.0: '/srv/../etc': write an absolute path"),
        (COMMAND + 'limit = "10"', "commands.0.limit: a duration is a text with its unit"),
        (COMMAND + "limit = 10", "commands.0.limit: a duration is a text with its unit"),
        (COMMAND + 'limit = "25h"', "commands.0.limit: Input should be less than or equal to 86400"),
        (COMMAND + 'limit = "999999999999d"', "commands.0.limit: Input should be less than or equal to 86400"),
        (COMMAND + 'limit = "0s"', "commands.0.limit: Input should be greater than 0"),
        (COMMAND + 'decision = "allow"', "commands.0.decision: an entry can only be stricter than the level"),
        (COMMAND + 'decision = "refuse"', "commands.0.decision: Input should be 'allow', 'ask' or 'deny'"),
        (COMMAND + "labels = { env = 1 }", "commands.0.labels.env: Input should be a valid string"),
        (COMMAND + 'env = { PATH = "/bin" }', "PATH cannot be granted"),
        (COMMAND + 'env = { "A-B" = "x" }', "'A-B' is no name of a variable"),
        (COMMAND + 'env = { DIR = { path = "/srv" } }', "a variable cannot be granted by a path"),
        (COMMAND + COMMAND, "commands, files: two entries have the name 'it'"),
        (COMMAND + '[[files]]\nname = "it"\nroot = "/srv"\nmay = ["get"]', "two entries have the name 'it'"),
        (COMMAND.replace('"it"', '""'), "commands.0.name: String should have at least 1"),
        (COMMAND.replace('"it"', f'"{"x" * 65}"'), "commands.0.name: String should have at most 64"),
        (COMMAND.replace('"it"', r'"a\nb"'), "commands.0.name: has characters that do not print"),
        (COMMAND.replace('"it"', r'"a\u202Eb"'), "commands.0.name: has characters that do not print"),
        ('[[files]]\nname = "f"\nroot = "srv"\nmay = ["get"]', "files.0.root: 'srv': write an absolute path"),
        (
            '[[files]]\nname = "f"\nroot = "/srv"\nmay = ["delete"]',
            "files.0.may.0: Input should be 'list', 'get' or 'put'",
        ),
        ('[[files]]\nname = "f"\nroot = "/srv"\nmay = []', "files.0.may: Tuple should have at least 1 item"),
        ('[[rules]]\nname = "r"', "rules.0.decision: is missing"),
        ('[[rules]]\nname = "r"\ndecision = "deny"\nlevels = []', "rules.0.levels: Tuple should have at least 1 item"),
        ('[[rules]]\nname = "r"\ndecision = "deny"\nlevels = ["boss"]', "rules.0.levels.0: Input should be 'student'"),
        (
            '[[rules]]\nname = "r"\ndecision = "deny"\nprincipals = ["Bob"]',
            "rules.0.principals.0: 'Bob' is no principal's name",
        ),
        (
            COMMAND + '[[rules]]\nname = "r"\ndecision = "deny"\ncommands = ["itt"]',
            "is about 'itt': did you mean 'it'?",
        ),
        ('[[rules]]\nname = "r"\ndecision = "deny"\n' * 2, "two rules have the name 'r'"),
        ('[approvals]\nrun_within = "31d"', "approvals.run_within: Input should be less than"),
        ("commands = 7", "commands: is a list, in brackets"),
        ("not toml", "is not TOML"),
        ("a = " + "[" * 100_000, "is nested too deeply"),
        ("a = " + "9" * 5000, "is not TOML"),
        ("#" * (256 * 1024 + 1), "has 262,145 bytes; 262,144 are the most"),
    ],
)
def test_a_mistake_in_the_fleets_policy_is_named_by_its_place(text: str, problem: str) -> None:
    assert any(problem in said for said in fleets.problems(text)), fleets.problems(text)
    with pytest.raises(errors.SettingsInvalid, match=re.escape(problem)):
        policy.parse(text)


def test_every_mistake_is_told_at_once() -> None:
    found = fleets.problems(COMMAND + 'limit = "x"\n[[rules]]\nname = "r"\ndecision = "never"\n[typo]')
    assert [said.partition(":")[0] for said in found] == ["commands.0.limit", "rules.0.decision", "typo"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[rules]]\nname = "r"\ndecision = "allow"', "rules.0.decision: a host's own file can only narrow"),
        (COMMAND + 'decision = "allow"', "commands.0.decision: an entry can only be stricter"),
        ("[shell]\nenable = true", "shell.enable: there is no such key, did you mean 'enabled'?"),
        ('[shell]\nenabled = "no"', "shell.enabled: Input should be a valid boolean"),
        ("[approvals]", "approvals: there is no such key"),
        (COMMAND * 2, "two entries have the name 'it'"),
        ("#" * (1024 * 1024 + 1), "has 1,048,577 bytes; 1,048,576 are the most"),
    ],
)
def test_a_mistake_in_a_hosts_file_is_named_by_its_place(text: str, problem: str) -> None:
    assert any(problem in said for said in host.problems(text)), host.problems(text)


def test_a_host_may_have_rules_about_entries_that_only_the_fleets_policy_has() -> None:
    assert host.problems('[[rules]]\nname = "r"\ndecision = "ask"\ncommands = ["disk usage"]') == ()


def test_what_nobody_wrote_is_the_default() -> None:
    read = policy.parse(COMMAND)
    assert read.approvals.approve_within_seconds == 3600
    assert read.approvals.run_within_seconds == 900
    [entry] = read.commands
    assert (entry.program, entry.limit_seconds, entry.cwd, entry.env, entry.labels) == ("/bin/df", 300, (), {}, {})
    said = policy.parse('[approvals]\napprove_within = "1h30m"\nrun_within = "90s"').approvals
    assert (said.approve_within_seconds, said.run_within_seconds) == (5400, 90)


def test_the_example_is_a_policy_and_so_is_every_line_of_it() -> None:
    text = services.config_file("policy.example.toml").read_text(encoding="utf-8")
    read = policy.parse(text)
    assert {entry.risk for entry in read.commands} == {"reads"}
    assert not read.files
    assert not read.rules
    uncommented = re.sub(r"^# (?=(\w+ = |\[\[))", "", text, flags=re.MULTILINE)
    whole = policy.parse(uncommented)
    assert len(whole.commands) > len(read.commands)
    assert whole.files
    assert whole.rules
    words = {name for model in (*whole.commands, *whole.files, *whole.rules) for name in model.model_fields_set}
    assert words >= {"cwd", "env", "limit", "labels", "decision", "most_bytes", "levels", "risks", "tasks", "commands"}


@given(st.text(max_size=300))
def test_no_text_is_worse_than_a_mistake(text: str) -> None:
    for problems in (fleets.problems, host.problems):
        assert isinstance(problems(text), tuple)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
_KEYS = st.sampled_from(
    ["approvals", "commands", "files", "rules", "shell", "containers", "argv", "name", "risk", "env"]
)


@given(st.dictionaries(_KEYS | st.text(max_size=8), _VALUES | st.lists(st.dictionaries(_KEYS, _VALUES), max_size=3)))
def test_no_document_is_worse_than_a_mistake(content: dict[str, object]) -> None:
    for model in (policy.FleetPolicy, policy.HostPolicy):
        with suppress(ValueError):
            model.model_validate(content)


@given(st.text(min_size=1, max_size=12).filter(str.isidentifier))
def test_a_key_that_no_policy_has_is_always_a_mistake(key: str) -> None:
    for section, model in (("", policy.FleetPolicy), ("[[commands]]\n", policy.FleetPolicy), ("", policy.HostPolicy)):
        if key not in model.model_fields and key not in policy.Command.model_fields:
            content = (
                {"commands": [{"name": "it", "risk": "reads", "argv": ["/bin/df"], key: 1}]} if section else {key: 1}
            )
            with pytest.raises(ValueError, match="Extra inputs"):
                model.model_validate(content)
