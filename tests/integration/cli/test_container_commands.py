"""What containers say and use, and images, from the command line to a real Engine, over the workers of three hosts."""

import json
import signal
from typing import Any

import docker
import pytest

from fleet import names
from tests.integration.cli.conftest import Cli
from tests.integration.cli.test_terminal import STYLE, on_terminal
from tests.services.docker import IMAGE
from tests.services.private_engine import PrivateEngine
from tests.services.registry import Registry
from tests.services.system import System
from tests.services.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("fleet_of_three")]


@pytest.fixture
def cli(fleet_of_three: System, docker_engine: PrivateEngine) -> Cli:
    """`fleet` beside them, and the Engine without containers."""
    return Cli({name: value for name, value in fleet_of_three.environment().items() if name.startswith("FLEET_")})


@pytest.fixture
def web(docker_client: docker.DockerClient) -> Any:
    """A container that says three lines, and a last one when it is told to go on."""
    # the Engine reads the two streams side by side, so that their order takes a moment in between
    says = "echo one; echo oh >&2; sleep 0.3; printf '\\033[2Jtwo\\tthree\\n'"
    script = f"{says}; while [ ! -e /go ]; do sleep 0.05; done; echo last"
    made = docker_client.containers.run(IMAGE, ["/bin/sh", "-c", script], name="web", detach=True)
    until(lambda: b"three" in made.logs(), "it has said them")
    return made


def go(web: Any) -> None:
    web.exec_run(["/bin/sh", "-c", "echo > /go"])


def runs(cli: Cli, task: str, state: str) -> list[Any]:
    return [run for run in cli("task", "list", "--json").json if run["task"] == task and run["state"] == state]


def test_logs_are_printed_followed_and_ended(cli: Cli, web: Any) -> None:
    done = cli("container", "logs", "web", "--host", "edge-7")
    assert (done.code, done.out, done.err) == (0, "one\n\x1b[2Jtwo\tthree\n", "oh\n")
    assert cli("container", "logs", "web", "--host", "edge-7", "--tail", "1").out == "\x1b[2Jtwo\tthree\n"
    timed = cli("container", "logs", "web", "--host", "edge-7", "-t", "--since", "1h").out.splitlines()
    assert timed[0].endswith("Z one")
    records = [
        json.loads(line) for line in cli("container", "logs", "web", "--host", "edge-7", "-o", "jsonl").out.splitlines()
    ]
    assert {(each["stream"], each["line"]) for each in records} == {
        ("stdout", "one"),
        ("stderr", "oh"),
        ("stdout", "\x1b[2Jtwo\tthree"),
    }
    both = cli("container", "logs", "web", "-l", "kind=edge")
    assert both.code == 0, both.err
    assert min(both.out.splitlines()) == "edge-7 | \x1b[2Jtwo\tthree"
    assert len(both.out.splitlines()) == 4

    code, said = on_terminal(cli, "container", "logs", "web", "--host", "edge-7")
    assert code == 0
    assert "\\x1b[2Jtwo\tthree" in said

    following = cli.start("container", "logs", "web", "--host", "edge-7", "-f", "--tail", "1")
    assert following.stdout is not None
    assert following.stdout.readline() == "\x1b[2Jtwo\tthree\n"
    go(web)
    assert following.stdout.readline() == "last\n"
    assert following.wait(30) == 0
    following.communicate()


def test_whoever_interrupts_the_following_ends_it_on_the_host(cli: Cli, web: Any) -> None:
    following = cli.start("container", "logs", "web", "--host", "edge-7", "-f")
    assert following.stdout is not None
    assert following.stdout.readline() == "one\n"
    following.send_signal(signal.SIGINT)
    said = following.communicate(timeout=30)
    assert following.returncode == 130, said
    until(lambda: runs(cli, "fleet.containers.logs", "cancelled"), "it has ended there")
    go(web)


def test_whoever_closes_the_pipe_ends_the_following_on_the_host(cli: Cli, docker_client: docker.DockerClient) -> None:
    script = "while :; do echo again; sleep 0.1; done"
    docker_client.containers.run(IMAGE, ["/bin/sh", "-c", script], name="talker", detach=True, stop_signal="SIGKILL")
    following = cli.start("container", "logs", "talker", "--host", "edge-7", "-f")
    assert following.stdout is not None
    assert following.stdout.readline() == "again\n"
    before = len(runs(cli, "fleet.containers.logs", "cancelled"))
    following.stdout.close()
    assert following.wait(30) == 141
    until(lambda: len(runs(cli, "fleet.containers.logs", "cancelled")) > before, "it has ended there")
    assert following.stderr is not None
    following.stderr.close()


def test_what_a_task_says_can_be_read_by_its_id(cli: Cli, web: Any) -> None:
    pushed = cli("push-task", "fleet.containers.logs", "--host", "edge-7", "--arg", "container=web", "-o", "id")
    run_id = pushed.out.strip()
    assert cli("task", "wait", run_id).code == 0
    assert cli("task", "logs", run_id).out == "one\n\x1b[2Jtwo\tthree\n"
    assert cli("task", "logs", "-f", run_id[-12:]).err == "oh\n"
    unknown = cli("task", "logs", names.new_run_id("edge-7"))
    assert unknown.code == 2
    go(web)


def test_what_cannot_be_followed_is_an_error_for_one_host_and_a_part_of_the_answer_for_several(
    cli: Cli, web: Any
) -> None:
    absent = cli("container", "logs", "absent", "--host", "edge-7")
    assert absent.code == 1
    assert "container 'absent'" in absent.error
    assert "`fleet ps` shows what there is" in absent.error
    partly = cli("container", "logs", "web", "--all", "--tail", "1")
    assert partly.code == 3
    assert "bare: " in partly.err
    assert "the Docker Engine" in partly.err
    nobody = cli("container", "logs", "web")
    assert nobody.code == 2
    assert "no host is selected" in nobody.error
    assert "is no number of lines" in cli("container", "logs", "web", "--host", "edge-7", "--tail", "few").error
    assert "is neither a duration" in cli("container", "logs", "web", "--host", "edge-7", "--since", "noon").error
    go(web)


def test_what_containers_use_is_a_table_or_json(cli: Cli, web: Any) -> None:
    found = cli("container", "stats", "web", "--host", "edge-7", "--json").json
    [record] = found
    assert (record["host"], record["name"], record["docker_id"]) == ("edge-7", "web", web.id)
    assert record["memory_bytes"] > 0
    both = cli("container", "stats", "-l", "kind=edge")
    assert both.code == 0, both.err
    table = both.out.splitlines()
    assert table[0].split()[:3] == ["HOST", "NAME", "CPU"]
    assert {line.split()[0] for line in table[1:]} == {"edge-7", "edge-8"}
    code, said = on_terminal(cli, "container", "stats", "--host", "edge-7", "--once")
    assert code == 0
    assert max(map(len, STYLE.sub("", said).splitlines())) <= 80
    assert "web" in said
    go(web)
    web.wait()
    assert "no container runs" in cli("container", "stats", "--host", "edge-7").err


def test_an_image_is_pulled_listed_and_removed(
    cli: Cli, registry: Registry, docker_client: docker.DockerClient
) -> None:
    name = registry.fill(docker_client, "shop/web", megabytes=4)
    code, said = on_terminal(cli, "image", "pull", name, "--host", "edge-7")
    assert code == 0, said
    assert "succeeded" in said
    [pulled] = cli("image", "pull", name, "--host", "edge-8", "--json").json
    assert pulled["changed"] is False
    assert pulled["digest"].startswith(f"{name}@sha256:")
    listed = cli("image", "list", "--host", "edge-7", "--json").json
    assert [each["id"] for each in listed if f"{name}:latest" in each["tags"]] == [pulled["image_id"]]
    assert name in cli("image", "list", "--host", "edge-7").out
    [removed] = cli("image", "rm", name, "--host", "edge-7", "--json").json
    assert f"{name}:latest" in removed["untagged"]
    missing = cli("image", "rm", name, "--host", "edge-7")
    assert missing.code == 1
    assert "check name and tag" in missing.err
    detached = cli("image", "pull", name, "--host", "edge-7", "--detach", "-o", "id").out.strip()
    assert cli("task", "wait", detached).code == 0
    assert "pull percent=100.0" in cli("task", "logs", detached).out


def test_an_interrupted_pull_ends_on_the_host(cli: Cli, registry: Registry, docker_client: docker.DockerClient) -> None:
    name = registry.fill(docker_client, "large", megabytes=16)
    registry.link.bytes_per_second = 200_000
    pulling = cli.start("image", "pull", name, "--host", "edge-7")
    until(lambda: registry.link.carrying, "it is under way", timeout=30)
    pulling.send_signal(signal.SIGINT)
    pulling.communicate(timeout=30)
    assert pulling.returncode == 130
    until(lambda: not registry.link.carrying, "the Engine has let go of the registry")
    until(lambda: runs(cli, "fleet.images.pull", "cancelled"), "it has ended there")


def test_a_worker_that_stops_does_not_wait_for_whoever_follows(
    cli: Cli, fleet_of_three: System, docker_engine: PrivateEngine, web: Any
) -> None:
    following = cli.start("container", "logs", "web", "--host", "edge-8", "-f")
    assert following.stdout is not None
    assert following.stdout.readline() == "one\n"
    edge_8 = fleet_of_three.parts[2]
    try:
        assert edge_8.stop(timeout=25) == 0  # the grace period is 30 s
    finally:
        fleet_of_three.start_worker("edge-8", FLEET_DOCKER_URL=docker_engine.url)  # for the other tests
    _, err = following.communicate(timeout=30)
    assert following.returncode == 1
    assert "because the worker was stopped" in err
    go(web)
