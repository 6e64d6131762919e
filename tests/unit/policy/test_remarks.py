"""Remarks: what is allowed in a policy, and wider than it looks. Programs that run others have tests of their own."""

import pytest

from fleet.policy.remarks import remarks
from tests.unit.policy.asking import command, files_below, fleets, hosts, rule


@pytest.mark.parametrize(
    "root", ["/", "/etc", "/etc/cron.d", "/usr/local/bin", "/root/.ssh", "/var/lib/docker", "/proc"]
)
def test_putting_files_where_they_make_somebody_root_is_warned_of(root: str) -> None:
    [said] = remarks(fleets(files=[files_below(root, "put", name="it")]))
    assert said.startswith('files "it": whoever may write below')
    assert remarks(fleets(files=[files_below(root, "list", "get")])) == ()
    assert remarks(fleets(files=[files_below(root, "put", decision="deny")])) == ()


def test_putting_files_elsewhere_is_not() -> None:
    assert remarks(fleets(files=[files_below("/srv/app"), files_below("/etcetera", name="other")])) == ()


def test_a_rule_that_allows_everything_to_everybody_is_warned_of() -> None:
    [said] = remarks(fleets(rules=[rule("allow")]))
    assert said == 'rule "the rule": allows every task to everybody, and whatever is listed'
    assert remarks(fleets(rules=[rule("allow", levels=["intern"]), rule("deny", name="other")])) == ()


def test_a_rule_about_a_task_that_there_is_not_is_warned_of() -> None:
    [said] = remarks(
        hosts(rules=[rule("deny", tasks=["fleet.containers.destroy", "fleet.containers.remove", "own.task"])])
    )
    assert said == "rule \"the rule\": there is no task 'fleet.containers.destroy' of Fleet's"


def test_a_hosts_file_is_looked_through_as_well() -> None:
    assert len(remarks(hosts(commands=[command("/usr/bin/env", {"word": True})], files=[files_below("/etc")]))) == 2
