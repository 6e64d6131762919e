"""What the README tells people to type does what it says, on a `fleet up` with a real Engine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import reader as readers
from tests.services.docker import IMAGE
from tests.services.documents import session
from tests.services.ports import free_ports
from tests.services.private_engine import PrivateEngine
from tests.services.reader import Reader

pytestmark = [pytest.mark.docker]

CREATE = "fleet token create --host-id edge-7 --label env=prod"
NGINX = "docker run -d --name web nginx"
#: No image can be pulled; a busybox that ends at once when it is stopped does for nginx.
BUSYBOX = f"docker run -d --name web --stop-signal KILL {IMAGE} /bin/sleep 300"


@pytest.fixture
def reader(make_reader: Callable[..., Reader], docker_engine: PrivateEngine, on_tmpfs: Path) -> Reader:
    reader = make_reader(DOCKER_HOST=docker_engine.url, FLEET_SECRETS_DIR=str(on_tmpfs))
    broker, flower = free_ports(2)
    readers.up(reader, broker=broker, flower=flower)
    return reader


def test_the_commands_of_the_readme_run(reader: Reader) -> None:
    (reader.here / "password.txt").write_text("hunter2")

    def token() -> str:
        return reader.said[CREATE].strip()

    reader.meant = {
        '"$(fleet host list -o id)"': "laptop",
        "TOKEN": token,
        "busybox:1.36": IMAGE,
        NGINX: BUSYBOX,
    }
    reader.shows = {
        "fleet host list": "laptop",
        "fleet ps": "web",
        "fleet task list": "fleet.containers.restart",
        "fleet run --all --rm busybox:1.36 echo hello": "hello",
        "fleet audit list --kind shell": "rejected",
    }
    reader.ends = {
        "fleet container create --all --privileged --dry-run busybox:1.36": 4,
        "fleet exec --all -- bash -c 'echo hello'": 125,
    }
    reader.follow(session("readme"))
    (credential,) = reader.directory.glob("home/.local/state/fleet/hosts/edge-7/credential.json")
    assert credential.stat().st_mode & 0o077 == 0


def test_the_python_of_the_readme_runs(reader: Reader) -> None:
    reader.run(BUSYBOX)
    reader.run("fleet host label laptop env=prod")
    reader.meant = {"edge-7": "laptop", "edge-1": "laptop", "edge-2": "laptop"}
    said = reader.follow(session("readme-python"))
    assert "laptop succeeded" in said
