"""Containers with secrets, on a real Engine: files that their user alone reads, and that go with the container."""

import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts import containers
from fleet.policy import ContainerPolicy
from tests.services.containers import KeptSecrets as Kept
from tests.services.docker import IMAGE, busybox_root
from tests.services.private_engine import PrivateEngine
from tests.services.runs import FakeRun
from workers.host.containers.engine import Engine
from workers.host.containers.grants import Grants
from workers.host.containers.making import Maker
from workers.host.containers.places import Places
from workers.host.containers.removing import Remover
from workers.host.containers.undoing import Undoing
from workers.host.containers.users import user_and_group

pytestmark = pytest.mark.docker

NAMED = "fleet-test/named:latest"


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[Engine]:
    engine = Engine(docker_engine.url)
    yield engine
    engine.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    directory = Path("/dev/shm") / f"fleet-test-{uuid.uuid4().hex[:8]}"
    yield Kept(directory, tmp_path)
    for each in directory.rglob("*"):
        assert each.is_dir(), "a secret was left"
    if directory.exists():
        directory.rmdir()


@pytest.fixture
def named(docker_client: docker.DockerClient) -> str:
    """An image with tables of users and groups, the latter behind a link."""
    buffer = io.BytesIO(busybox_root())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for path, text in (
            ("etc/passwd", "root:x:0:0::/:/bin/sh\nshop:x:1000:1001::/:/bin/sh\nodd:x:y:z\n"),
            ("usr/group", "root:x:0:\nstaff:x:50:shop\n"),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("etc/group")
        link.type, link.linkname = tarfile.SYMTYPE, "../usr/group"
        archive.addfile(link)
    docker_client.api.import_image_from_data(buffer.getvalue(), repository=NAMED.partition(":")[0], tag="latest")
    return NAMED


def maker(engine: Engine, directory: Path, kept: Kept | None, *, policy: ContainerPolicy | None = None) -> Maker:
    grants = Grants(policy or ContainerPolicy(), Places(engine), engine)
    return Maker(engine, grants, Undoing(engine, directory / "making", secrets=kept), secrets=kept)


def wanted(**spec: Any) -> containers.CreateContainer:
    plain = {"image": IMAGE, "name": "web", "stop_signal": "SIGKILL", "secrets": [{"name": "db"}]}
    return containers.CREATE.parse({"spec": {**plain, **spec}})


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, (0, 0)),
        ("shop", (1000, 1001)),
        ("shop:staff", (1000, 50)),
        ("1000", (1000, 1001)),
        ("1000:7", (1000, 7)),
        ("4242", (4242, 0)),
        ("shop:7", (1000, 7)),
        ("7:staff", (7, 50)),
    ],
)
def test_the_user_of_a_container_is_the_number_that_its_tables_say(
    engine: Engine, docker_client: docker.DockerClient, named: str, user: str | None, expected: tuple[int, int]
) -> None:
    made = docker_client.containers.create(named, ["/bin/true"], user=user)
    assert user_and_group(engine, engine.inspect(str(made.id))) == expected


@pytest.mark.parametrize("user", ["nobody", "shop:nobody", "odd"])
def test_a_user_that_the_tables_do_not_have_is_named(
    engine: Engine, docker_client: docker.DockerClient, named: str, user: str
) -> None:
    made = docker_client.containers.create(named, ["/bin/true"], user=user)
    with pytest.raises(errors.TaskFailed, match=user.rpartition(":")[2]) as caught:
        user_and_group(engine, engine.inspect(str(made.id)))
    assert caught.value.kind == "unknown_user"


def test_a_secret_is_a_file_of_the_containers_user_and_is_nowhere_in_its_description(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path, kept: Kept, named: str
) -> None:
    run = FakeRun()
    script = "cat /run/secrets/password; ls -ln /run/secrets; ! echo x > /run/secrets/password"
    made = maker(engine, tmp_path, kept).create(
        wanted(
            image=named,
            user="shop",
            command=["/bin/sh", "-c", script],
            secrets=[{"name": "db", "file": "password"}],
        ),
        run,
    )
    container = docker_client.containers.get(made.container.docker_id)
    assert container.wait()["StatusCode"] == 0
    said = container.logs().decode()
    assert "value of db" in said
    assert "-r--------    1 1000     1001" in said
    assert "value of" not in str(engine.inspect(made.container.docker_id))
    grants = Grants(ContainerPolicy(), Places(engine), engine)
    Remover(engine, grants, secrets=kept).remove(containers.REMOVE.parse({"container": "web"}), FakeRun())
    assert list(kept.directory.iterdir()) == []


def test_a_container_that_is_replaced_takes_its_secrets_with_it(engine: Engine, tmp_path: Path, kept: Kept) -> None:
    undoing = Undoing(engine, tmp_path / "making", secrets=kept)
    making = Maker(engine, Grants(ContainerPolicy(), Places(engine), engine), undoing, secrets=kept)
    sleep = ["/bin/sleep", "300"]
    making.create(wanted(command=sleep), FakeRun())
    run = FakeRun()
    making.create(wanted(command=sleep).model_copy(update={"replace": True}), run)
    undoing.look()
    assert [each.name for each in kept.directory.iterdir()] == [run.run_id.partition(":")[2]]
    kept.discard(run.run_id)


@pytest.mark.parametrize("spec", [{"command": ["/bin/absent"]}, {"user": "nobody"}, {"networks": ["absent"]}])
def test_a_container_that_fails_leaves_no_secret(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path, kept: Kept, spec: dict[str, Any]
) -> None:
    with pytest.raises(errors.TaskFailed):
        maker(engine, tmp_path, kept).create(wanted(**spec), FakeRun())
    assert docker_client.containers.list(all=True, ignore_removed=True) == []


def test_a_host_that_delivers_no_secrets_makes_no_container_that_wants_some(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    with pytest.raises(errors.EngineRefused) as caught:
        maker(engine, tmp_path, None).create(wanted(), FakeRun())
    assert caught.value.kind == "secrets_unavailable"
    assert docker_client.containers.list(all=True, ignore_removed=True) == []


class Remapping(Engine):
    """An Engine that says of itself how it maps users."""

    says: str

    def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = super().ask(method, path, **options)
        return {**answer, "SecurityOptions": ["name=seccomp,profile=builtin", self.says]} if path == "/info" else answer


@pytest.fixture
def remapping(docker_engine: PrivateEngine) -> Iterator[Remapping]:
    engine = Remapping(docker_engine.url)
    yield engine
    engine.close()


USERS_OF_THE_HOST = ContainerPolicy(namespaces=("userns:host",))


@pytest.mark.parametrize(
    "case",
    [("name=userns", None), ("name=rootless", None), ("name=rootless", "host")],
    ids=lambda case: "-".join(map(str, case)),
)
def test_no_secrets_go_to_users_who_could_not_read_them(
    remapping: Remapping, docker_client: docker.DockerClient, tmp_path: Path, kept: Kept, case: tuple[str, str | None]
) -> None:
    remapping.says, mode = case
    making = maker(remapping, tmp_path, kept, policy=USERS_OF_THE_HOST)
    with pytest.raises(errors.EngineRefused, match="could not read them") as caught:
        making.create(wanted(userns_mode=mode), FakeRun())
    assert caught.value.kind == "secrets_unavailable"
    assert docker_client.containers.list(all=True, ignore_removed=True) == []


def test_secrets_go_to_a_container_with_the_hosts_users_where_others_have_their_own(
    remapping: Remapping, tmp_path: Path, kept: Kept
) -> None:
    remapping.says = "name=userns"
    run = FakeRun()
    made = maker(remapping, tmp_path, kept, policy=USERS_OF_THE_HOST).create(
        wanted(userns_mode="host", command=["/bin/sleep", "300"]), run
    )
    assert made.container.state == "running"
    kept.discard(run.run_id)
