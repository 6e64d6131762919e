"""`fleet policy`: checked and tried without a fleet, applied to one, shown, and explained as hosts would judge."""

from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from fleet import audit, db, inventory, members, names, policy, principals, services
from fleet.security.identity import Level
from tests import factories
from tests.integration.cli.conftest import Cli

POLICY = """
[[commands]]
name = "load"
risk = "reads"
argv = ["/usr/bin/uptime"]

[[commands]]
name = "restart"
risk = "changes"
argv = ["/usr/bin/systemctl", "restart", { word = true }]
cwd = ["/srv"]
env = { LANG = "C" }
limit = "2m"
labels = { env = "prod" }

[[rules]]
name = "no removals"
decision = "deny"
tasks = ["fleet.containers.remove"]
reason = "ask the people on call"
"""


@pytest.fixture
def written(tmp_path: Path) -> str:
    path = tmp_path / "fleets.toml"
    path.write_text(POLICY)
    return str(path)


@pytest.fixture
def fleet(cli: Cli, ledger: Engine, client: "redis.Redis") -> Cli:
    """A fleet with a host in production, one in the lab, and an intern who may push to production."""
    with db.session(ledger) as session:
        for host, env in (("edge-7", "prod"), ("lab", "lab")):
            factories.enroll(session, host, labels={"env": env}).broker_hashes = ["ab" * 32]
        principals.create(
            session,
            ring=factories.ring(),
            name="bot",
            level=Level.INTERN,
            by="alice",
            broker_url="redis://127.0.0.1/0",
            selectors={"env": "prod"},
        )
    with db.session(ledger, write=False) as session:
        inventory.publish_hosts(session, client)
        members.publish(session, client, factories.ring())
    return cli


def test_a_good_policy_is_ok_and_what_is_wide_in_it_is_warned_of(bare: Cli, written: str) -> None:
    checked = bare("policy", "check", written)
    assert checked.code == 0
    assert "OK" in checked.out
    assert 'warning: command "restart": systemctl can run other programs or write files' in checked.err
    record = bare("policy", "check", written, "--json").json
    assert (record["ok"], record["commands"], record["files"], record["rules"]) == (True, 2, 0, 1)
    assert len(record["warnings"]) == 1


def test_both_examples_pass_without_a_warning(bare: Cli) -> None:
    for flags, name in (([], "policy.example.toml"), (["--host"], "host-policy.example.toml")):
        checked = bare("policy", "check", *flags, str(services.config_file(name)))
        assert (checked.code, checked.err) == (0, "")


def test_everything_that_is_wrong_is_told_by_its_place(bare: Cli, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(POLICY.replace("cwd", "cwdd").replace('"2m"', "2") + "[typo]\n")
    checked = bare("policy", "check", str(path))
    assert checked.code == 2
    for said in (
        "commands.1.cwdd: there is no such key, did you mean 'cwd'?",
        "commands.1.limit: ",
        "typo: there is no",
    ):
        assert said in checked.out
    assert len(bare("policy", "check", str(path), "--json").json["problems"]) == 3
    assert bare("policy", "check", str(tmp_path / "none.toml")).error.endswith(
        "(No such file or directory); see `fleet policy check --help`"
    )


def test_a_hosts_file_is_another_kind(bare: Cli, tmp_path: Path, written: str) -> None:
    path = tmp_path / "host.toml"
    path.write_text("[shell]\nenabled = false\n")
    assert bare("policy", "check", "--host", str(path)).code == 0
    assert bare("policy", "check", str(path)).code == 2
    assert bare("policy", "check", "-", stdin="[shell]\nenabled = 0\n").code == 2
    path.write_text('[[rules]]\nname = "r"\ndecision = "allow"\n')
    assert "can only narrow" in bare("policy", "check", "--host", str(path)).out


def test_a_policy_is_applied_shown_and_on_record(
    fleet: Cli, client: "redis.Redis", ledger: Engine, written: str
) -> None:
    assert fleet("policy", "show").error.startswith("fleet: error: no policy is set, so every command is denied")
    applied = fleet("policy", "apply", written, "--json")
    assert applied.code == 0
    assert applied.json["version"] == 1
    assert applied.json["changed"] is True
    stated = policy.read(str(client.get(names.POLICY)), [factories.key("fleet").public])
    assert (stated.version, stated.text) == (1, POLICY)
    assert [word["kind"] for word in factories.heard(client, "edge-7", "policy.updated")] == ["policy.updated"]
    shown = fleet("policy", "show")
    assert shown.out == POLICY
    assert shown.err.startswith("version 1, set by alice ")
    assert fleet("policy", "show", "--json").json["text"] == POLICY
    assert fleet("policy", "apply", written, "--json").json["changed"] is False
    with db.session(ledger, write=False) as session:
        [event] = audit.events(session, event="policy.set", after_id=0)
    assert event.data == {"version": 1, "digest": applied.json["digest"]}


def test_a_wrong_policy_is_not_applied(fleet: Cli, client: "redis.Redis", tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[typo]\n")
    refused = fleet("policy", "apply", str(path))
    assert refused.code == 2
    assert "typo: there is no such key" in refused.error
    assert not client.exists(names.POLICY)


def test_explain_says_what_a_host_would_say(fleet: Cli, written: str) -> None:
    def explain(*words: str) -> tuple[int, dict[str, object]]:
        said = fleet("policy", "explain", "--json", *words)
        return said.code, said.json

    code, said = explain("--host", "edge-7", "--", "uptime")
    assert (code, said["decision"], said["reason"], said["policy"]) == (4, "deny", "no_policy", 0)
    assert fleet("policy", "apply", written).code == 0
    code, said = explain("--host", "edge-7", "--", "uptime")
    assert (code, said["decision"], said["principal"], said["level"]) == (0, "allow", "alice", "autonomous")
    assert (said["command"], said["policy"], said["labels"]) == ("load", 1, {"env": "prod"})
    code, said = explain("--as", "bot", "--host", "edge-7", "--", "systemctl", "restart", "nginx")
    assert (code, said["decision"], said["reason"]) == (0, "ask", "needs_approval")
    assert said["rule"] == 'command "restart" (changes): interns ask for more than looking'
    code, said = explain("--as", "bot", "--host", "lab", "--", "uptime")
    assert (code, said["reason"], said["rule"]) == (
        4,
        "not_permitted",
        "principal bot may push to hosts with env=prod only",
    )
    code, said = explain("--host", "lab", "--", "systemctl", "restart", "nginx")
    assert (code, said["rule"]) == (4, 'command "restart" lists this, but not for this host (labels)')
    code, said = explain("--host", "edge-7", "--", "bash", "-c", "id")
    assert (code, said["reason"], said["rule"]) == (4, "not_in_allow_list", "no entry lists the program 'bash'")
    code, said = explain("--host", "edge-7", "--task", "fleet.containers.remove")
    assert (code, said["rule"]) == (4, 'rule "no removals": ask the people on call')
    assert explain("--as", "bot", "--host", "edge-7", "--task", "fleet.containers.stop")[1]["decision"] == "ask"


FILES = """
[[files]]
name = "app"
root = "/srv/app"
may = ["list", "get", "put"]
most_bytes = 500000

[[files]]
name = "logs"
root = "/var/log"
may = ["list", "get"]
labels = { env = "prod" }

[[rules]]
name = "keys stay"
decision = "deny"
commands = ["app"]
principals = ["mallory"]
reason = "not by mallory"
"""


def test_files_are_explained_by_the_same_rules(bare: Cli, tmp_path: Path) -> None:
    path = tmp_path / "files.toml"
    path.write_text(FILES)

    def explain(*words: str, level: str = "intern") -> tuple[int, dict[str, object]]:
        said = bare("policy", "explain", "--policy", str(path), "--level", level, "--json", *words)
        return said.code, said.json

    code, said = explain("--file", "get", "/srv/app/x.conf")
    assert (code, said["decision"], said["file"], said["command"], said["most_bytes"]) == (
        *(0, "allow", "app", None, 500_000),
    )
    assert said["rule"] == 'files "app" (reads): interns do what is listed and reads'
    code, said = explain("--file", "put", "/srv/app/x.conf")
    assert (code, said["decision"], said["risk"], said["most_bytes"]) == (0, "ask", "changes", 131_072)
    assert explain("--file", "ls", "/srv/app", level="student")[1]["decision"] == "ask"
    code, said = explain("--file", "put", "/srv/app/x.conf", "--as", "mallory", level="autonomous")
    assert (code, said["reason"], said["file"]) == (4, "denied", None)
    assert said["rule"] == 'files "app" (changes): rule "keys stay": not by mallory'
    code, said = explain("--file", "get", "/var/log/syslog")
    assert (code, said["rule"]) == (4, 'files "logs" lists this, but not for this host (labels)')
    assert explain("--file", "get", "/var/log/syslog", "--label", "env=prod")[1]["decision"] == "allow"
    code, said = explain("--file", "put", "/var/log/syslog", "--label", "env=prod", level="autonomous")
    assert (code, said["reason"], said["rule"]) == (4, "not_in_allow_list", "no entry of files lists that")
    assert explain("--file", "get", "/etc/shadow", level="autonomous")[0] == 4
    told = bare("policy", "explain", "--policy", str(path), "--level", "intern", "--file", "put", "/srv/app/x.conf")
    assert told.out.splitlines()[:5] == [
        "Decision:  ask",
        "Reason:    needs_approval",
        'Rule:      files "app" (changes): interns ask for more than looking',
        "Risk:      changes",
        "At most:   128.0KiB",
    ]


def test_explain_speaks_to_people_and_says_who_else_has_a_say(fleet: Cli, written: str) -> None:
    fleet("policy", "apply", written)
    said = fleet("policy", "explain", "--as", "bot", "--host", "edge-7", "--", "uptime")
    assert said.out.splitlines() == [
        "Decision:  allow",
        "Reason:    allowed",
        'Rule:      command "load" (reads): interns do what is listed and reads',
        "Risk:      reads",
        "Principal: bot (intern)",
        "Host:      edge-7 (env=prod)",
        "Policy:    version 1",
    ]
    assert said.err == "the host's own file may narrow this further\n"


def test_a_policy_is_tried_without_a_fleet(bare: Cli, written: str) -> None:
    tried = ("policy", "explain", "--policy", written, "--level", "supervised", "--json")
    prod = ("--label", "env=prod")
    restart = ("--", "systemctl", "restart", "nginx")
    assert bare(*tried, *prod, *restart).json["decision"] == "allow"
    assert bare(*tried, *restart).code == 4
    assert (
        bare(*tried, *prod, "--cwd", "/srv", "--env", "LANG=C", "--limit", "2m", *restart).json["decision"] == "allow"
    )
    for wrong in (("--cwd", "/"), ("--env", "LANG=de"), ("--env", "PATH=/tmp"), ("--limit", "3m")):
        assert bare(*tried, *prod, *wrong, *restart).code == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--level", "intern"), "no command; write it after --"),
        (("--level", "intern", "--task", "fleet.host.ping", "--", "id"), "--task: takes neither a command"),
        (("--level", "intern", "--task", "fleet.files.put"), "name it and the path with --file"),
        (("--level", "intern", "--file", "put", "/a", "--", "id"), "--file: takes neither a command"),
        (("--level", "intern", "--file", "put", "/a", "--task", "fleet.host.ping"), "--file and --task"),
        (("--level", "intern", "--file", "put", "/a/../b"), "without '.', '..'"),
        (("--level", "intern", "--file", "rm", "/a"), "'rm' is not one of"),
        (("--level", "intern", "--task", "fleet.host.pong"), "did you mean 'fleet.host.ping'?"),
        (("--host", "edge-7", "--label", "a=b", "--", "id"), "--host and --label"),
        (("--level", "intern", "--cwd", "srv", "--", "id"), "cwd: the directory is an absolute path"),
        (("--level", "intern", "--env", "A-B=1", "--", "id"), "'A-B' is no name of a variable"),
    ],
)
def test_a_question_that_makes_no_sense_is_said_to_be_that(
    bare: Cli, written: str, words: tuple[str, ...], said: str
) -> None:
    asked = bare("policy", "explain", "--policy", written, *words)
    assert asked.code == 2
    assert said in asked.error


def test_who_and_where_have_to_be_known(fleet: Cli, written: str) -> None:
    for words, said in (
        (("--as", "nobody", "--host", "edge-7"), "no principal named 'nobody'"),
        (("--host", "edge-8"), "no host named 'edge-8' is enrolled; did you mean 'edge-7'?"),
    ):
        asked = fleet("policy", "explain", "--policy", written, *words, "--", "uptime")
        assert asked.code == 2
        assert said in asked.error


def test_a_policy_that_the_fleet_has_not_signed_is_not_gone_by(fleet: Cli, client: "redis.Redis") -> None:
    client.set(names.POLICY, policy.state(POLICY, 9, [factories.key("mallory")]))
    asked = fleet("policy", "explain", "--host", "edge-7", "--", "uptime")
    assert asked.code == 4
    assert "no key of the fleet has signed" in asked.error
