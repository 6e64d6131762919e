"""Judging: by entry, level and rule; the strictest counts, and a host's file makes nothing wider."""

import base64
from pathlib import Path
from typing import Any

import pytest

from fleet import errors
from fleet.contracts.verdicts import Decision
from fleet.policy import paths_in
from tests.unit.policy.asking import command, files_below, fleets, hosts, rule, run, task, touch
from workers.host.commands import followed

LEVELS = ("student", "intern", "supervised", "autonomous")
RISKS = ("reads", "changes", "destroys", "executes")
#: A task of each risk.
TASKS = {"reads": "fleet.containers.list", "changes": "fleet.containers.stop", "destroys": "fleet.containers.remove"}
UPTIME = command("/usr/bin/uptime", name="uptime")
LISTED = fleets(commands=[UPTIME])


@pytest.mark.parametrize(
    ("level", "decisions"),
    [
        ("student", ("ask", "ask", "ask", "ask")),
        ("intern", ("allow", "ask", "ask", "ask")),
        ("supervised", ("allow", "allow", "ask", "ask")),
        ("autonomous", ("allow", "allow", "allow", "allow")),
    ],
)
def test_what_is_listed_goes_by_level_and_the_entrys_risk(level: str, decisions: tuple[str, ...]) -> None:
    for risk, decision in zip(RISKS, decisions, strict=True):
        verdict = run(["uptime"], fleets(commands=[command("/usr/bin/uptime", risk=risk)]), level=level)
        assert (verdict.decision, verdict.risk) == (decision, risk)
        assert verdict.reason == {"allow": "allowed", "ask": "needs_approval"}[decision]
        assert verdict.command is not None
        assert verdict.command.program == "/usr/bin/uptime"


@pytest.mark.parametrize(
    ("level", "decisions"),
    [
        ("student", ("allow", "deny", "deny")),
        ("intern", ("allow", "ask", "ask")),
        ("supervised", ("allow", "allow", "ask")),
        ("autonomous", ("allow", "allow", "allow")),
    ],
)
@pytest.mark.parametrize("fleet", [None, fleets()], ids=["no policy", "an empty one"])
def test_other_tasks_go_by_level_and_the_contracts_risk(level: str, decisions: tuple[str, ...], fleet: Any) -> None:
    for risk, decision in zip(TASKS, decisions, strict=True):
        verdict = task(TASKS[risk], fleet, level=level)
        assert (verdict.decision, verdict.risk) == (decision, risk)
        assert verdict.reason == {"allow": "allowed", "ask": "needs_approval", "deny": "not_permitted"}[decision]


@pytest.mark.parametrize("level", LEVELS)
def test_files_are_listed_and_got_as_reads_and_put_as_changes(level: str) -> None:
    listed = fleets(files=[files_below("/srv")])
    for operation, risk in (("list", "reads"), ("get", "reads"), ("put", "changes")):
        expected = run(["x"], fleets(commands=[command("/bin/x", risk=risk)]), level=level)
        verdict = touch(operation, "/srv/a", listed, level=level)
        assert (verdict.decision, verdict.risk) == (expected.decision, risk)
        assert verdict.file is not None
        assert verdict.command is None


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_not_listed_is_denied_at_every_level(level: str) -> None:
    verdict = run(["bash", "-c", "id"], LISTED, level=level)
    assert (verdict.decision, verdict.reason) == ("deny", "not_in_allow_list")
    assert verdict.rule == "no entry lists the program 'bash'"
    assert verdict.command is None
    assert touch("get", "/etc/passwd", LISTED, level=level).reason == "not_in_allow_list"


def test_without_a_policy_every_command_and_file_is_denied() -> None:
    assert run(["uptime"], None).reason == "no_policy"
    assert touch("list", "/", None).reason == "no_policy"


def test_a_host_whose_shell_is_switched_off_carries_no_command_and_no_file_out() -> None:
    off = hosts(shell={"enabled": False})
    assert run(["uptime"], LISTED, host=off).reason == "switched_off"
    assert touch("get", "/srv/a", fleets(files=[files_below("/srv")]), host=off).reason == "switched_off"
    assert task("fleet.containers.list", None, host=off).decision == "allow"


def test_the_rule_says_who_decided_and_why() -> None:
    assert run(["uptime"], LISTED, level="student").rule == (
        'command "uptime" (reads): students ask for everything that is listed'
    )
    listed = fleets(commands=[UPTIME], rules=[rule("deny", name="not now", reason="we are moving")])
    assert run(["uptime"], listed).rule == 'command "uptime" (reads): rule "not now": we are moving'
    assert run(["uptime"], listed).reason == "denied"
    assert task("fleet.containers.list", listed).rule == 'rule "not now": we are moving'


def test_the_program_is_named_by_its_path_or_the_last_part_of_it() -> None:
    for name in ("uptime", "/usr/bin/uptime"):
        assert run([name], LISTED).decision == "allow"
    for name in (
        "/bin/uptime",
        "./uptime",
        "bin/uptime",
        "UPTIME",
        "uptime ",
        "",
        "//usr/bin/uptime",
        "/usr/bin/../bin/uptime",
    ):
        assert run([name], LISTED).reason == "not_in_allow_list"


@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ({"cwd": "/srv/app/x"}, "the directory '/srv/app/x'"),
        ({"cwd": "/srv"}, "the directory '/srv'"),
        ({"cwd": "/srv/app/"}, "the directory '/srv/app/'"),
        ({"cwd": "/"}, "the directory '/'"),
        ({"env": {"LANG": "de"}}, "that value of the variable LANG"),
        ({"env": {"lang": "C"}}, "the variable 'lang'"),
        ({"env": {"LANG": "C", "LD_PRELOAD": "x"}}, "the variable 'LD_PRELOAD'"),
        ({"limit": 600.001}, "more than 600 s"),
        ({"limit": float("nan")}, "more than 600 s"),
        ({"limit": float("inf")}, "more than 600 s"),
        ({"labels": {"env": "lab"}}, "for this host (labels)"),
        ({"labels": {}}, "for this host (labels)"),
    ],
)
def test_what_an_entry_does_not_grant_beside_the_arguments_is_not_listed(asked: dict[str, Any], lacking: str) -> None:
    entry = command("/usr/bin/uptime", cwd=["/srv/app"], env={"LANG": ["C"]}, limit="10m", labels={"env": "prod"})
    good: dict[str, Any] = {
        "cwd": "/srv/app",
        "env": {"LANG": "C"},
        "limit": 600.0,
        "labels": {"env": "prod", "a": "b"},
    }
    assert run(["uptime"], fleets(commands=[entry]), **good).decision == "allow"
    assert run(["uptime"], fleets(commands=[entry]), labels={"env": "prod"}).decision == "allow", (
        "nothing more is asked"
    )
    verdict = run(["uptime"], fleets(commands=[entry]), **{**good, **asked})
    assert (verdict.decision, verdict.reason) == ("deny", "not_in_allow_list")
    assert lacking in verdict.rule


def test_the_nearest_entry_is_named_where_none_matches() -> None:
    listed = fleets(commands=[command("/bin/df", "-h", name="disk usage")])
    assert run(["df", "-i"], listed).rule == 'command "disk usage" lists this program, but not with these arguments'


def test_an_entry_that_denies_denies_by_arguments_and_labels_alone() -> None:
    wide = command("/usr/bin/uptime", name="wide", cwd=["/srv"], limit="1h")
    never = command("/usr/bin/uptime", name="never", decision="deny", labels={"env": "prod"})
    listed = fleets(commands=[wide, never])
    assert run(["uptime"], listed, cwd="/srv", limit=3000, labels={"env": "prod"}).reason == "denied"
    assert run(["uptime"], listed, cwd="/srv", limit=3000).decision == "allow"


def test_an_entry_that_asks_asks_everybody() -> None:
    listed = fleets(commands=[command("/usr/bin/uptime", decision="ask")])
    for level in LEVELS:
        assert run(["uptime"], listed, level=level).decision == "ask"
    allowing = fleets(commands=[command("/usr/bin/uptime", decision="ask")], rules=[rule("allow")])
    assert run(["uptime"], allowing).decision == "ask", "a rule does not take back what an entry says"


def test_of_entries_that_match_the_strictest_counts_and_of_those_the_first_grants() -> None:
    first = command("/bin/ls", {"path": "/srv"}, name="first", limit="1m")
    second = command("/bin/ls", {"path": "/srv/app"}, name="second")
    grave = command("/bin/ls", {"enum": ["/srv/app/x"]}, name="grave", risk="destroys")
    granted = run(["ls", "/srv/app/x"], fleets(commands=[first, second]), level="supervised").command
    assert granted is not None
    assert granted.name == "first"
    longer = run(["ls", "/srv/app/x"], fleets(commands=[first, second]), level="supervised", limit=120.0).command
    assert longer is not None
    assert longer.name == "second", "the first does not grant that much time"
    asked = run(["ls", "/srv/app/x"], fleets(commands=[first, second, grave]), level="supervised")
    assert asked.decision == "ask"
    assert asked.command is not None
    assert asked.command.name == "grave"


@pytest.mark.parametrize("more", [{"limit": 360.0}, {"cwd": "/srv"}, {"env": {"LANG": "C"}}])
@pytest.mark.parametrize(
    ("stricter", "rules", "decision"),
    [
        ({"decision": "ask"}, [], "ask"),
        ({}, [rule("ask", commands=["the database"])], "ask"),
        ({}, [rule("deny", commands=["the database"])], "deny"),
        ({}, [rule("deny", risks=["destroys"])], "deny"),
    ],
)
def test_who_asks_for_more_than_one_entry_grants_does_not_get_out_of_what_it_decides(
    more: dict[str, Any], stricter: dict[str, Any], rules: list[dict[str, Any]], decision: str
) -> None:
    wide = command(
        *("/usr/bin/systemctl", "restart", {"word": True}),
        name="any service",
        risk="changes",
        limit="10m",
        cwd=["/srv"],
        env={"LANG": "C"},
    )
    exact = command("/usr/bin/systemctl", "restart", "postgresql", name="the database", risk="destroys", **stricter)
    listed = fleets(commands=[wide, exact], rules=rules)
    verdict = run(["systemctl", "restart", "postgresql"], listed, **more)
    assert (verdict.decision, verdict.risk) == (decision, "destroys")
    if decision == "ask":
        assert verdict.command is not None
        assert verdict.command.name == "any service", "which grants all that is asked for"
    assert run(["systemctl", "restart", "nginx"], listed, **more).decision == "allow"


@pytest.mark.parametrize("ruled", [{"commands": ["the database"]}, {"risks": ["destroys"]}])
def test_the_rules_of_a_host_are_about_every_entry_that_lists_a_request(ruled: dict[str, Any]) -> None:
    wide = command("/usr/bin/systemctl", "restart", {"word": True}, name="any service", risk="changes")
    exact = command("/usr/bin/systemctl", "restart", "postgresql", name="the database", risk="destroys")
    listed = fleets(commands=[wide, exact])
    for own in ({}, {"commands": [{**wide, "name": "mine"}]}):
        host = hosts(rules=[rule("deny", **ruled)], **own)
        assert run(["systemctl", "restart", "postgresql"], listed, host=host).reason == "denied"
        assert run(["systemctl", "restart", "nginx"], listed, host=host).decision == "allow"
    asked = run(["systemctl", "restart", "postgresql"], listed, level="student")
    assert (asked.decision, asked.risk) == ("ask", "destroys"), "who approves is trusted with the gravest of them"


def test_a_program_is_the_hosts_own_only_by_its_whole_path() -> None:
    listed = fleets(commands=[command("/srv/app/df", "-h")])
    own = hosts(commands=[command("/bin/df", "-h")])
    for program in ("df", "/srv/app/df"):
        verdict = run([program, "-h"], listed, host=own)
        assert verdict.reason == "not_in_allow_list"
        assert verdict.rule == "the host's own policy: no entry lists the program '/srv/app/df'"
    assert run(["df", "-h"], listed, host=hosts(commands=[command("/srv/app/df", "-h")])).decision == "allow"


def test_a_time_that_nobody_asked_for_is_not_too_long() -> None:
    listed = fleets(commands=[command("/usr/bin/uptime", limit="10s")])
    granted = run(["uptime"], listed, host=hosts(commands=[command("/usr/bin/uptime", limit="5s")])).command
    assert granted is not None
    assert granted.limit_seconds == 5
    assert run(["uptime"], listed, limit=20.0).reason == "not_in_allow_list"


@pytest.mark.parametrize(
    ("conditions", "elsewhere"),
    [
        ({"levels": ["intern"]}, {"level": "supervised"}),
        ({"risks": ["reads"]}, {"risk": "changes"}),
        ({"labels": {"env": "prod"}}, {"labels": {"env": "lab"}}),
        ({"principals": ["bob"]}, {"principal": "alice"}),
        ({"tasks": ["fleet.shell.run"]}, {"tasks": True}),
        ({"commands": ["it", "other"]}, {"name": "another"}),
        ({"levels": ["intern"], "principals": ["bob"]}, {"principal": "alice"}),
    ],
)
def test_a_rule_is_about_what_matches_all_that_it_says(conditions: dict[str, Any], elsewhere: dict[str, Any]) -> None:
    who: dict[str, Any] = {"level": "intern", "labels": {"env": "prod"}, "principal": "bob"}
    other = {"name": "other", "risk": "reads", "argv": ["/bin/other"]}
    entry = command("/bin/it", name=elsewhere.get("name", "it"), risk=elsewhere.get("risk", "reads"))
    same = command("/bin/it")
    ruled = [rule("deny", **conditions)]
    assert run(["it"], fleets(commands=[same, other], rules=ruled), **who).reason == "denied"
    if "tasks" in elsewhere:
        assert touch("get", "/srv/a", fleets(files=[files_below("/srv")], rules=ruled), **who).decision == "allow"
        return
    there = {**who, **{key: value for key, value in elsewhere.items() if key in who}}
    named = [*([command("/bin/x", name="it")] if entry["name"] == "another" else []), entry, other]
    assert run(["it"], fleets(commands=named, rules=ruled), **there).reason != "denied"


def test_a_rule_takes_the_place_of_what_the_level_says_and_the_strictest_counts() -> None:
    allows, asks, denies = (rule(word, name=word) for word in ("allow", "ask", "deny"))
    stop = "fleet.containers.stop"
    assert task(stop, fleets(rules=[allows]), level="student").decision == "allow"
    assert task(stop, fleets(rules=[asks]), level="autonomous").decision == "ask"
    for order in ([allows, asks, denies], [denies, asks, allows]):
        assert task(stop, fleets(rules=order)).decision == "deny"
    assert task(stop, fleets(rules=[asks, allows])).decision == "ask"
    assert run(["uptime"], fleets(commands=[UPTIME], rules=[allows]), level="student").decision == "allow"
    assert run(["bash"], fleets(commands=[UPTIME], rules=[allows])).reason == "not_in_allow_list", (
        "no rule lists anything"
    )


def test_files_are_granted_below_their_root_for_what_may_be_done_and_up_to_a_size() -> None:
    listed = fleets(files=[files_below("/srv/app", "list", "put", most_bytes=4)])
    assert touch("list", "/srv/app", listed).decision == "allow"
    assert touch("get", "/srv/app/x", listed).reason == "not_in_allow_list"
    assert touch("list", "/srv/apps", listed).reason == "not_in_allow_list"
    assert touch("list", "/srv/app/../x", listed).reason == "not_in_allow_list"
    for size, decision in ((0, "allow"), (3, "allow"), (4, "allow"), (5, "deny")):
        content = base64.b64encode(b"x" * size).decode()
        assert touch("put", "/srv/app/x", listed, content=content).decision == decision


def test_a_hosts_own_list_has_to_have_it_too() -> None:
    none, other = hosts(commands=[]), hosts(commands=[command("/bin/df", name="df")])
    for host in (none, other):
        verdict = run(["uptime"], LISTED, host=host)
        assert verdict.reason == "not_in_allow_list"
        assert verdict.rule.startswith("the host's own policy: ")
    assert run(["df"], LISTED, host=other).reason == "not_in_allow_list", "it can only narrow"
    assert run(["uptime"], LISTED, host=hosts(commands=[UPTIME])).decision == "allow"
    assert run(["uptime"], LISTED, host=hosts(files=[])).decision == "allow"
    assert (
        touch("get", "/srv/a", fleets(files=[files_below("/srv")]), host=hosts(files=[])).reason == "not_in_allow_list"
    )


def test_a_hosts_entry_shortens_what_is_granted() -> None:
    ours = command(
        "/bin/ls", {"path": "/srv"}, "/srv/app", cwd=["/a", "/b"], env={"LANG": "C", "TZ": "UTC"}, limit="10m"
    )
    theirs = command(
        "/bin/ls", {"path": "/srv/app"}, {"path": "/srv"}, name="mine", cwd=["/b"], env={"LANG": "C"}, limit="2m"
    )
    verdict = run(["ls", "/srv/app/x", "/srv/app"], fleets(commands=[ours]), host=hosts(commands=[theirs]))
    granted = verdict.command
    assert granted is not None
    assert (granted.name, granted.cwd, set(granted.env), granted.limit_seconds) == ("it", ("/b",), {"LANG"}, 120)
    assert paths_in(granted, ("ls", "/srv/app/x", "/srv/app")) == (
        (1, "/srv/app"),
        (1, "/srv"),
        (2, "/srv"),
    )
    wider = run(["ls", "/srv/app/x", "/srv/app"], fleets(commands=[theirs]), host=hosts(commands=[ours])).command
    assert wider is not None
    assert paths_in(wider, ("ls", "/srv/app/x", "/srv/app"))[0] == (1, "/srv/app")
    assert run(["ls", "/srv/x", "/srv/app"], fleets(commands=[ours]), host=hosts(commands=[theirs])).decision == "deny"


@pytest.mark.parametrize(
    ("fleets_own", "hosts_own", "used"),
    [
        (["/srv/scratch"], [], None),
        ([], ["/srv/scratch"], None),
        (["/srv/scratch"], ["/srv/other"], None),
        (["/"], [], "/"),
        ([], ["/"], "/"),
        ([], [], "/"),
        (["/a", "/b"], ["/c", "/b"], "/b"),
    ],
)
def test_where_no_directory_is_asked_for_it_is_one_that_both_grant_or_nothing_is_run(
    fleets_own: list[str], hosts_own: list[str], used: str | None
) -> None:
    ours = command("/bin/rm", "-r", {"word": True}, cwd=fleets_own)
    theirs = command("/bin/rm", "-r", {"word": True}, name="mine", cwd=hosts_own)
    verdict = run(["rm", "-r", "etc"], fleets(commands=[ours]), host=hosts(commands=[theirs]))
    if used is None:
        assert verdict.reason == "not_in_allow_list"
        assert verdict.rule.startswith("the host's own policy: ")
    else:
        assert verdict.command is not None
        assert next(iter(verdict.command.cwd), "/") == used


def test_a_path_that_leads_out_of_what_the_hosts_owner_grants_is_not_followed(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    other.mkdir()
    (own / "real").mkdir(parents=True)
    (own / "current").symlink_to(other)
    for fleets_own, hosts_own in ((own / "current", own), (own, own / "current")):
        ours = fleets(commands=[command("/bin/cat", {"path": str(fleets_own)})])
        theirs = hosts(commands=[command("/bin/cat", {"path": str(hosts_own)}, name="mine")])
        argv = ("cat", str(own / "current"))
        granted = run(argv, ours, host=theirs).command
        assert granted is not None
        roots = [root for _index, root in paths_in(granted, argv)]
        assert len(roots) == 2
        with pytest.raises(errors.NotGranted):
            [followed(argv[1], root) for root in roots]


def test_a_hosts_grant_of_files_shortens_the_fleets() -> None:
    ours, theirs = files_below("/srv", most_bytes=100), files_below("/srv/app", "get", "list", most_bytes=7)
    for one, other in ((ours, theirs), (theirs, ours)):
        granted = touch("get", "/srv/app/x", fleets(files=[one]), host=hosts(files=[other])).file
        assert granted is not None
        assert (granted.root, granted.within, granted.most_bytes) == ("/srv/app", "/srv", 7)
        assert set(granted.may) == {"get", "list"}
        assert touch("put", "/srv/app/x", fleets(files=[one]), host=hosts(files=[other])).decision == "deny"
        assert touch("get", "/srv/x", fleets(files=[one]), host=hosts(files=[other])).decision == "deny"


def test_a_host_makes_things_stricter_and_says_that_it_was_the_host() -> None:
    asks = run(["uptime"], LISTED, host=hosts(rules=[rule("ask", commands=["uptime"])]))
    assert (asks.decision, asks.reason) == ("ask", "needs_approval")
    assert asks.rule == 'the host\'s own policy: rule "the rule"'
    assert asks.command is not None
    denies = run(["uptime"], LISTED, host=hosts(rules=[rule("deny")]), level="student")
    assert (denies.decision, denies.reason, denies.command) == ("deny", "denied", None)
    assert task(
        "fleet.containers.stop", None, host=hosts(rules=[rule("deny", tasks=["fleet.containers.stop"])])
    ).reason == ("denied")
    assert (
        task("fleet.containers.stop", None, host=hosts(rules=[rule("ask")]), level="student").reason == "not_permitted"
    )


def test_a_host_that_takes_a_command_for_graver_has_its_way() -> None:
    graver = hosts(commands=[command("/usr/bin/uptime", name="mine", risk="destroys")])
    verdict = run(["uptime"], LISTED, host=graver, level="supervised")
    assert (verdict.decision, verdict.risk) == (Decision.ASK, "destroys")
    milder = fleets(commands=[command("/usr/bin/uptime", risk="destroys")])
    assert run(["uptime"], milder, host=hosts(commands=[UPTIME]), level="supervised").risk == "destroys"
