"""What containers say and use, told by this host's functions, on a real Engine."""

import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts.container_output import LOGS, STATS, Logs, Stats
from tests.services.containers import container_tasks
from tests.services.docker import IMAGE
from tests.services.freezing import frozen
from tests.services.private_engine import PrivateEngine
from tests.services.recorded_engine import RecordedEngine
from tests.services.runs import KeptRun
from tests.services.waiting import until
from workers.host.containers import following, usage
from workers.host.containers.engine import Engine
from workers.host.tasks.following import FollowingTasks

pytestmark = pytest.mark.docker

LINES = 'i=0; while [ $i -lt {count} ]; do echo "line $i"; i=$((i+1)); done'


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[Engine]:
    made = Engine(docker_engine.url)
    yield made
    made.close()


@pytest.fixture
def tasks(engine: Engine, tmp_path: Path) -> FollowingTasks:
    return of_owner(engine, tmp_path)


def of_owner(engine: Engine, directory: Path, **policy: Any) -> FollowingTasks:
    return FollowingTasks(engine, container_tasks(engine, directory, **policy).grants)


@pytest.fixture
def run() -> KeptRun:
    return KeptRun()


def shell(docker_client: docker.DockerClient, script: str, *, name: str = "web", wait: bool = True, **more: Any) -> Any:
    """Run a script in a container of that name; to its end, unless told otherwise."""
    container = docker_client.containers.run(IMAGE, ["/bin/sh", "-c", script], name=name, detach=True, **more)
    if wait:
        container.wait()
    return container


class Doing:
    """A task that is under way in a thread of its own."""

    def __init__(self, perform: Callable[[Any, Any], Any], request: Any, run: KeptRun) -> None:
        self.reply: Any = None
        self.error: BaseException | None = None

        def work() -> None:
            try:
                self.reply = perform(request, run)
            except BaseException as exc:  # noqa: BLE001 - the test looks at it
                self.error = exc

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
        return self.reply


def test_a_container_that_has_ended_is_told_whole_and_patiently(
    tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient
) -> None:
    shell(docker_client, LINES.format(count=500) + "; echo oh >&2")
    reply = tasks.logs(Logs(container="web"), run)
    assert reply == LOGS.reply(lines=501, ended="read")
    assert run.text("stdout") == "".join(f"line {n}\n" for n in range(500))
    assert run.text("stderr") == "oh\n"
    assert run.patient


def test_of_the_output_the_end_is_told_or_one_of_both_streams_or_what_came_since(
    tasks: FollowingTasks, docker_client: docker.DockerClient
) -> None:
    container = shell(docker_client, LINES.format(count=20) + "; echo oh >&2")

    def told(**wish: Any) -> str:
        run = KeptRun()
        tasks.logs(Logs.model_validate({"container": "web", **wish}), run)
        return run.text()

    assert told(tail=2, stderr=False).splitlines()[-1] == "line 19"
    assert told(tail=0) == ""
    assert told(stdout=False) == "oh\n"
    assert told(last_seconds=3600).count("\n") == 21
    assert told(since=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == ""
    at_start = container.attrs["Created"]
    assert told(since=at_start).count("\n") == 21


def test_times_stand_before_lines_if_they_are_wished(
    tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient
) -> None:
    shell(docker_client, "echo one; echo two")
    tasks.logs(Logs(container="web", timestamps=True), run)
    first, second = run.text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one", first)
    assert second.endswith("Z two")


def test_long_lines_come_whole_and_odd_bytes_are_no_obstacle(
    tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient
) -> None:
    script = r"""i=0; while [ $i -lt 10000 ]; do printf 'long'; i=$((i+1)); done; echo
                 printf '\377\000\033[2J\n'; printf 'no end'"""
    container = shell(docker_client, script)
    container.start()
    container.wait()
    reply = tasks.logs(Logs(container="web", timestamps=True), run)
    long, odd, last, again = (line.partition(" ")[2] for line in run.text().split("\n")[:4])
    assert long == "long" * 10_000 == again
    assert odd == "\ufffd\x00\x1b[2J"
    assert last == "no end"
    assert reply.lines == 5


def test_a_terminal_is_told_too(tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient) -> None:
    shell(docker_client, "echo one; echo two >&2", tty=True)
    assert tasks.logs(Logs(container="web"), run).lines == 2
    assert run.text("stdout") == "one\r\ntwo\r\n"


def test_a_container_is_followed_until_it_stops(
    tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient
) -> None:
    container = shell(docker_client, "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after", wait=False)
    doing = Doing(tasks.logs, Logs(container="web", follow=True), run)
    until(lambda: run.text() == "before\n", "what was there")
    container.exec_run(["/bin/sh", "-c", "echo > /go"])
    assert doing.result() == LOGS.reply(lines=2, ended="stopped")
    assert run.text() == "before\nafter\n"


def test_of_what_is_followed_the_beginning_is_told_patiently_and_a_flood_is_not(run: KeptRun) -> None:
    teller = following.Teller(run, timestamps=False, patiently=False)
    for _ in range(following.FOLLOWED_WHOLE_BYTES // 1024):
        teller.tell(following.Part("stdout", "", b"x" * 1023 + b"\n"))
    assert run.patient
    teller.tell(following.Part("stdout", "", b"more\n"))
    assert not run.patient


def test_following_ends_at_once_when_the_run_is_to_end_or_nobody_listens(
    tasks: FollowingTasks, docker_client: docker.DockerClient
) -> None:
    shell(docker_client, "echo hello; sleep 300", wait=False, stop_signal="SIGKILL")
    for end in (KeptRun.end, KeptRun.leave_alone):
        run = KeptRun()
        doing = Doing(tasks.logs, Logs(container="web", follow=True), run)
        until(lambda run=run: run.text(), "it says something")  # type: ignore[misc]
        end(run)
        if end is KeptRun.leave_alone:
            assert doing.result().ended == "unfollowed"
        else:
            with pytest.raises(errors.TaskCancelled):
                doing.result()


def test_a_silent_connection_is_opened_anew_and_no_line_is_told_twice(
    tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "QUIET_SECONDS", 3.0)
    opened: list[Any] = []
    real = Engine.open
    monkeypatch.setattr(Engine, "open", lambda *a, **k: opened.append(dict(k["params"])) or real(*a, **k))
    container = shell(docker_client, "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two", wait=False)
    doing = Doing(tasks.logs, Logs(container="web", follow=True, tail=5), run)
    until(lambda: opened and opened[-1]["tail"] == "all", "it is opened anew")
    container.exec_run(["/bin/sh", "-c", "echo > /go"])
    assert doing.result().ended == "stopped"
    assert run.text() == "one\ntwo\n"
    assert opened[0]["tail"] == 5


def test_an_engine_that_hangs_ends_the_following(
    tasks: FollowingTasks,
    run: KeptRun,
    docker_client: docker.DockerClient,
    docker_engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "QUIET_SECONDS", 3.0)
    shell(docker_client, "echo one; sleep 300", wait=False, stop_signal="SIGKILL")
    doing = Doing(tasks.logs, Logs(container="web", follow=True), run)
    until(run.text, "it says something")
    with frozen(docker_engine.daemon_pid), pytest.raises(errors.EngineUnavailable):
        doing.result()


def test_what_cannot_be_told_is_an_error_that_says_so(
    engine: Engine, tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    with pytest.raises(errors.EngineRefused) as caught:
        tasks.logs(Logs(container="absent"), run)
    assert caught.value.kind == "no_such_container"
    shell(docker_client, "echo one", log_config=docker.types.LogConfig(type="none"))
    with pytest.raises(errors.EngineRefused, match="does not support reading") as caught:
        tasks.logs(Logs(container="web"), run)
    assert caught.value.kind == "not_supported"

    owners = of_owner(engine, tmp_path / "owner", manage="managed")
    assert owners.stats(Stats(), run).usage == ()
    for perform, request in (
        (FollowingTasks.logs, Logs(container="web")),
        (FollowingTasks.stats, Stats(containers=("web",))),
    ):
        with pytest.raises(errors.NotGranted, match="was not made by Fleet"):
            perform(owners, request, run)


def test_a_look_at_what_containers_use_is_in_the_reply_and_in_the_output(
    tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient
) -> None:
    busy = shell(docker_client, "while :; do :; done", name="busy", wait=False, mem_limit="64m", stop_signal="SIGKILL")
    shell(docker_client, "sleep 300", name="idle", wait=False, stop_signal="SIGKILL")
    docker_client.containers.create(IMAGE, ["/bin/true"], name="never")
    reply = tasks.stats(Stats(), run)
    found = {usage.name: usage for usage in reply.usage}
    assert set(found) == {"busy", "idle"}
    assert reply.ended == "read"
    assert found["busy"].docker_id == busy.id
    assert found["busy"].memory_limit_bytes == 64 * 2**20
    assert 0 < found["idle"].memory_bytes < 64 * 2**20
    assert found["idle"].pids >= 1
    assert found["idle"].network_in_bytes is not None
    assert run.entries == [
        ("usage", {"look": 1, "last": True, "usage": [u.model_dump(mode="json") for u in reply.usage]})
    ]

    def told_apart() -> bool:  # in one second on a busy machine neither may have come to anything
        used = {usage.name: usage.cpu_percent for usage in tasks.stats(Stats(), KeptRun()).usage}
        return used["busy"] > used["idle"]

    until(told_apart, "who is busy uses more")


def test_named_containers_are_looked_at_until_they_are_gone(
    tasks: FollowingTasks, run: KeptRun, docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.host.tasks.following._LOOK_SECONDS", 0.1)
    container = shell(docker_client, "sleep 300", wait=False, stop_signal="SIGKILL")
    doing = Doing(tasks.stats, Stats(containers=("web",), follow=True), run)
    until(lambda: len(run.entries) > 2, "several looks")
    container.remove(force=True)
    assert doing.result() == STATS.reply(usage=(), ended="stopped")
    assert [data["look"] for _, data in run.entries] == list(range(1, len(run.entries) + 1))
    with pytest.raises(errors.EngineRefused) as caught:
        tasks.stats(Stats(containers=("web",)), run)
    assert caught.value.kind == "no_such_container"


def test_a_container_that_goes_while_its_sample_is_made_is_left_out(engine_of_500: RecordedEngine) -> None:
    engine = Engine(engine_of_500.url)
    assert usage.samples(engine, [engine_of_500.containers[0]["Id"]]) == {}
    assert engine.reachable
    engine.close()


def test_looking_ends_when_the_run_is_to_end_or_nobody_listens(
    tasks: FollowingTasks, docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.host.tasks.following._LOOK_SECONDS", 0.1)
    alone, ended = KeptRun(), KeptRun()
    doing = Doing(tasks.stats, Stats(follow=True), alone)
    alone.leave_alone()
    assert doing.result().ended == "unfollowed"
    doing = Doing(tasks.stats, Stats(follow=True), ended)
    ended.end()
    with pytest.raises(errors.TaskCancelled):
        doing.result()
