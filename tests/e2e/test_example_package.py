"""The example package, installed from its wheel beside Fleet's: tasks of one's own, as `examples/fleet-disk` says."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.services import documents, wheels
from tests.services.broker import Broker, emptied
from tests.services.reader import without_comment
from tests.services.waiting import until
from tests.services.wheels import REPOSITORY

pytestmark = [pytest.mark.xdist_group("wheel")]

HOST = "edge-1"
EXAMPLE = REPOSITORY / "examples" / "fleet-disk"


class Installation:
    """An environment with both wheels, and the processes that run from it."""

    def __init__(self, programs: Path, *, directory: Path, broker_url: str) -> None:
        self._programs = programs
        self._directory = directory
        # Nothing of the checkout: neither its path nor its settings.
        self._environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "HOME": str(directory),
            "FLEET_STATE_DIR": str(directory / "state"),
            "FLEET_BROKER_URL": broker_url,
            "FLEET_PRINCIPAL": "tests",
            # There is no Engine: the tasks of the example want none.
            "FLEET_DOCKER_URL": f"unix://{directory}/no-engine.sock",
        }

    def run(self, program: str, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._programs / program, *argv],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def fleet(self, *argv: str) -> Any:
        """Run a `fleet` command that must succeed, and return its JSON."""
        done = self.run("fleet", *argv, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return json.loads(done.stdout)

    def start(self, *argv: str) -> "subprocess.Popen[bytes]":
        with (self._directory / f"{argv[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [self._programs / "fleet", *argv], cwd=self._directory, env=self._environment, stdout=log, stderr=log
            )

    def logs(self) -> str:
        return "".join(f"\n{path.name}:\n{path.read_text()[-3000:]}" for path in self._directory.glob("*.log"))


def end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of an environment lie that holds Fleet and the example."""
    built = tmp_path_factory.mktemp("built")
    both = [wheels.build(source, target=built) for source in (REPOSITORY, EXAMPLE)]
    return wheels.install(tmp_path_factory.mktemp("clean") / "venv", both)


@pytest.fixture(scope="module")
def installed(
    programs: Path, valkey_server: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A control worker and an enrolled host, running from that environment."""
    directory = tmp_path_factory.mktemp("installed")
    installation = Installation(programs, directory=directory, broker_url=emptied(valkey_server).url)
    with ExitStack() as running:
        running.callback(end, installation.start("control"))
        installation.fleet("principal", "create", "tests", "--level", "autonomous")
        token = installation.fleet("token", "create", "--host-id", HOST)["token"]
        enrolled = installation.run("fleet", "enroll", token, "--host-id", HOST)
        assert enrolled.returncode == 0, enrolled.stderr + installation.logs()
        running.callback(end, installation.start("worker", "--host-id", HOST))
        # Queued for a host that is on its way: it is online when the answer comes.
        installation.fleet("push-task", "fleet.host.ping", "--host", HOST, "--offline", "queue", "--wait")
        yield installation


def test_a_task_of_a_package_is_pushed_carried_out_and_audited(installed: Installation, tmp_path: Path) -> None:
    measured = tmp_path / "measured"
    (measured / "large").mkdir(parents=True)
    (measured / "large" / "file").write_bytes(os.urandom(300_000))
    (measured / "small").write_bytes(b"x")

    pushed = installed.fleet("push-task", "disk.usage", "--host", HOST, "--arg", f"path={measured}", "--wait")
    (run,) = pushed["runs"]

    assert run["reply"]["files"] == 2
    assert run["reply"]["used_bytes"] >= 300_000
    assert [entry["name"] for entry in run["reply"]["largest"]] == ["large", "small"]

    def audited() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = installed.fleet("audit", "list", "--task", run["id"])
        return found if found and found[-1]["event"] == "run.succeeded" else []

    events = until(audited, "its end is on record")
    names = [event["event"] for event in events]
    assert names[:3] == ["run.queued", "run.accepted", "run.started"]
    # What follows within a second is left out, the last one never.
    steps = [event["data"]["step"] for event in events if event["event"] == "run.progressed"]
    assert len(steps) == len(names) - 4
    assert steps[-1] == "measuring small"


def test_a_program_pushes_it_with_delay(installed: Installation) -> None:
    program = (
        "import json; from fleet.tasks import task;"
        f"print(json.dumps(task('disk.free').on('{HOST}').delay(path='/').get(timeout=30)))"
    )
    done = installed.run("python", "-c", program)

    assert done.returncode == 0, done.stderr + installed.logs()
    free = json.loads(done.stdout)
    assert 0 < free["free_bytes"] <= free["total_bytes"]


def test_what_its_page_says_works(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    meant = {"edge-7": HOST, "/var/lib/docker": str(tmp_path)}
    said = ""
    for block in documents.session("example"):
        text = "\n".join(without_comment(command) for command in block.commands) if not block.language else block.text
        for placeholder, meaning in meant.items():
            text = text.replace(placeholder, meaning)
        for words in [["python", "-c", text]] if block.language else map(shlex.split, text.splitlines()):
            done = installed.run(*words)
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{installed.logs()}"
            said = done.stdout
    assert "[{'name': 'a'" in said


def test_wrong_arguments_and_impossible_paths_are_told_apart(installed: Installation) -> None:
    relative = installed.run("fleet", "push-task", "disk.usage", "--host", HOST, "--arg", "path=var", "--wait")
    assert (relative.returncode, "path" in relative.stderr) == (2, True)

    missing = installed.run("fleet", "push-task", "disk.usage", "--host", HOST, "--arg", "path=/no/such", "--wait")
    assert (missing.returncode, "No such file or directory" in missing.stdout + missing.stderr) == (1, True)
