"""Specs of containers by somebody who wants the host: every way to ask, and every way around being asked."""

import copy
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from fleet import errors
from fleet.contracts import containers, registry
from tests.services.containers import container_tasks
from tests.services.docker import IMAGE
from tests.services.private_engine import PrivateEngine
from tests.services.runs import FakeRun
from workers.host.containers.engine import Engine
from workers.host.containers.replacing import replaced

PLAIN = {"image": IMAGE, "command": ["/bin/sleep", "300"], "stop_signal": "SIGKILL"}

#: Fleet's field → what others call it: the Engine, its older versions, docker-py, Compose, `docker run`.
SPELLINGS = {
    "privileged": ("Privileged", "HostConfig.Privileged", "PRIVILEGED", "hostConfig.privileged"),
    "cap_add": ("CapAdd", "HostConfig.CapAdd", "cap-add", "capAdd", "Capabilities"),
    "binds": ("Binds", "HostConfig.Binds", "bind", "BINDS"),
    "volumes": ("Mounts", "HostConfig.Mounts", "mounts", "mount", "Volumes", "VolumeDriver", "volume_driver"),
    "volumes_from": ("VolumesFrom", "HostConfig.VolumesFrom", "volumes-from", "volumesFrom"),
    "devices": ("Devices", "HostConfig.Devices", "device"),
    "gpus": ("DeviceRequests", "device_requests", "device-requests", "HostConfig.DeviceRequests", "gpu"),
    "network_mode": ("NetworkMode", "HostConfig.NetworkMode", "network-mode", "networkMode"),
    "networks": ("net", "network", "Network", "NetworkingConfig.Networks"),
    "pid_mode": ("PidMode", "HostConfig.PidMode", "pid", "pid-mode", "pidMode", "PID"),
    "ipc_mode": ("IpcMode", "HostConfig.IpcMode", "ipc", "ipc-mode"),
    "uts_mode": ("UTSMode", "HostConfig.UTSMode", "uts", "UtsMode"),
    "userns_mode": ("UsernsMode", "HostConfig.UsernsMode", "userns", "userns-mode"),
    "cgroupns_mode": ("CgroupnsMode", "HostConfig.CgroupnsMode", "cgroupns", "cgroup", "Cgroup"),
    "cgroup_parent": ("CgroupParent", "HostConfig.CgroupParent", "cgroup-parent", "cgroupParent"),
    "security_opt": (
        "SecurityOpt",
        "HostConfig.SecurityOpt",
        "security-opt",
        "securityOpts",
        "MaskedPaths",
        "masked_paths",
        "ReadonlyPaths",
        "readonly-paths",
    ),
    "sysctls": ("Sysctls", "HostConfig.Sysctls", "sysctl"),
    "runtime": ("Runtime", "HostConfig.Runtime"),
}
#: What a spec has no word for.
UNSAID = (
    "DeviceCgroupRules",
    "device_cgroup_rules",
    "OomScoreAdj",
    "GroupAdd",
    "group_add",
    "Links",
    "StorageOpt",
    "PublishAllPorts",
    "AutoRemove",
    "ContainerIDFile",
    "Annotations",
    "Isolation",
)
#: What takes a grant, and the lines that grant it.
DEMANDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "privileged": ({"privileged": True}, {"privileged": True}),
    "capability": ({"cap_add": ["SYS_ADMIN"]}, {"capabilities": ["SYS_ADMIN"]}),
    "capability in other letters": ({"cap_add": ["cap_sys_ptrace"]}, {"capabilities": ["SYS_PTRACE"]}),
    "all capabilities": ({"cap_add": ["ALL"]}, {"capabilities": ["ALL"]}),
    "device": ({"devices": [{"source": "/dev/null", "target": "/dev/x"}]}, {"devices": ["/dev/null"]}),
    "graphics": ({"gpus": "all"}, {"devices": ["gpus"]}),
    "network of the host": ({"network_mode": "host"}, {"namespaces": ["network:host"]}),
    "processes of the host": ({"pid_mode": "host"}, {"namespaces": ["pid:host"]}),
    "memory of the host": ({"ipc_mode": "host"}, {"namespaces": ["ipc:host"]}),
    "name of the host": ({"uts_mode": "host"}, {"namespaces": ["uts:host"]}),
    "users of the host": ({"userns_mode": "host"}, {"namespaces": ["userns:host"]}),
    "control groups of the host": ({"cgroupns_mode": "host"}, {"namespaces": ["cgroupns:host"]}),
    "network of a container": ({"network_mode": "container:prey"}, {"namespaces": ["network:container:prey"]}),
    "processes of a container": ({"pid_mode": "container:prey"}, {"namespaces": ["pid:container:prey"]}),
    "memory of a container": ({"ipc_mode": "container:prey"}, {"namespaces": ["ipc:container:prey"]}),
    "no seccomp": ({"security_opt": ["seccomp=unconfined"]}, {"security_opt": ["seccomp=unconfined"]}),
    "no apparmor": ({"security_opt": ["apparmor:unconfined"]}, {"security_opt": ["apparmor=unconfined"]}),
    "no masks": ({"security_opt": ["systempaths=unconfined"]}, {"security_opt": ["systempaths=unconfined"]}),
    "no labels": ({"security_opt": ["label:disable"]}, {"security_opt": ["label=disable"]}),
    "new privileges": (
        {"security_opt": ["no-new-privileges:false"]},
        {"security_opt": ["no-new-privileges=false"]},
    ),
    "kernel setting": ({"sysctls": {"kernel.msgmax": "65536"}}, {"sysctls": ["kernel.msgmax"]}),
    "runtime": ({"runtime": "io.containerd.runc.v2"}, {"runtimes": ["io.containerd.runc.v2"]}),
    "control group": ({"cgroup_parent": "/batch"}, {"cgroup_parents": ["/batch"]}),
    "mounts of a container": ({"volumes_from": ["prey:ro"]}, {"volumes_from": ["prey"]}),
}


class Host:
    """A host under a policy, and somebody who makes containers there."""

    def __init__(self, engine: Engine, directory: Path, **policy: Any) -> None:
        self.tasks = container_tasks(engine, directory, **policy)

    def make(self, *, start: bool = True, **spec: Any) -> Any:
        wanted = {"spec": {**PLAIN, **spec}, "start": start}
        return self.tasks.create(containers.CREATE.parse(wanted), FakeRun())

    def denials(self, **spec: Any) -> str:
        """Return why a spec is denied; it is refused, and what a check says is what a create says."""
        checked = self.tasks.check(containers.CHECK.parse({"spec": {**PLAIN, **spec}}), FakeRun())
        assert not checked.allowed
        with pytest.raises(errors.NotGranted) as caught:
            self.make(**spec)
        for denial in checked.denials:
            assert denial.reason in str(caught.value)
        return str(caught.value)


@pytest.fixture
def engine(docker_engine: PrivateEngine) -> Iterator[Engine]:
    engine = Engine(docker_engine.url)
    yield engine
    engine.close()


@pytest.fixture
def srv(tmp_path: Path) -> Path:
    """A directory of the host, with something in it."""
    path = tmp_path / "srv" / "data"
    path.mkdir(parents=True)
    (path / "here").write_text("it is")
    return path


def assert_nothing_left(client: docker.DockerClient, *, but: tuple[str, ...] = ()) -> None:
    assert {c.name for c in client.containers.list(all=True, ignore_removed=True)} == set(but)
    assert client.volumes.list() == []


@pytest.mark.parametrize(("field", "spelling"), [(f, s) for f, spellings in SPELLINGS.items() for s in spellings])
def test_every_other_spelling_of_a_field_is_refused_by_name_with_fleets_own(field: str, spelling: str) -> None:
    for value in (True, "host", ["ALL"], {}, None):
        with pytest.raises(errors.InvalidArguments) as caught:
            containers.CREATE.parse({"spec": {"image": IMAGE, spelling: value}})
        assert f"`{field}`" in caught.value.fields[f"spec.{spelling}"]
        assert not spelling.startswith("HostConfig") or "HostConfig" in str(caught.value)


@pytest.mark.parametrize("field", UNSAID)
def test_what_a_spec_cannot_ask_for_is_refused_by_name(field: str) -> None:
    with pytest.raises(errors.InvalidArguments) as caught:
        containers.CREATE.parse({"spec": {"image": IMAGE, field: ["x"]}})
    assert "no such field" in caught.value.fields[f"spec.{field}"]


def test_fields_in_the_engines_boxes_are_named() -> None:
    with pytest.raises(errors.InvalidArguments) as caught:
        containers.CREATE.parse({"spec": {"image": IMAGE, "HostConfig": {"Privileged": True, "PidMode": "host"}}})
    assert "Privileged: Fleet's word is `privileged`" in caught.value.fields["spec.HostConfig"]
    assert "PidMode: Fleet's word is `pid_mode`" in caught.value.fields["spec.HostConfig"]


def test_no_task_copies_into_a_container() -> None:
    """What is put on the host never lies in Docker's own directories (tests/hostile/test_file_races.py)."""
    words = ("copy", "archive", "put", "exec", "commit", "export")
    found = [name for name in registry.known() if name.startswith("fleet.") and any(w in name for w in words)]
    assert found == ["fleet.files.put"]


@pytest.mark.docker
@pytest.mark.parametrize("what", DEMANDS)
def test_what_takes_a_grant_is_refused_without_it_and_leaves_nothing(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path, what: str
) -> None:
    spec, policy = DEMANDS[what]
    docker_client.containers.run(IMAGE, ["/bin/sleep", "300"], name="prey", detach=True, stop_signal="SIGKILL")
    said = Host(engine, tmp_path).denials(**spec, volumes=[{"name": "fresh", "target": "/fresh"}])
    (key,) = policy
    assert f"{key} = " in said
    assert_nothing_left(docker_client, but=("prey",))
    others = {k: v for _spec, p in DEMANDS.values() for k, v in p.items() if k != key}
    Host(engine, tmp_path, **others).denials(**spec)


@pytest.mark.docker
@pytest.mark.parametrize("what", DEMANDS)
def test_what_is_granted_is_made_as_it_was_asked_for(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path, what: str
) -> None:
    spec, policy = DEMANDS[what]
    docker_client.containers.run(IMAGE, ["/bin/sleep", "300"], name="prey", detach=True, stop_signal="SIGKILL")
    # What it is allowed to be, it is made as. Whether this machine can run it is another question: it may lack the
    # hardware, or be confined itself.
    assert Host(engine, tmp_path, **policy).make(**spec, name="made", start=False).container.state == "created"


# The ways around.


@pytest.mark.docker
@pytest.mark.parametrize(
    "options",
    [
        {"type": "none", "o": "bind", "device": "/etc"},
        {"type": "none", "o": "rw,bind", "device": "/"},
        {"type": "none", "o": "rbind", "device": "/etc"},
        {"type": "nfs", "o": "bind", "device": "/etc"},
        {"type": "nfs", "o": "addr=10.0.0.1, BIND", "device": ":/x"},
        {"type": "tmpfs", "o": "move", "device": "/etc"},
        {"type": "ext4", "device": "/dev/vda"},
        {"type": "overlay", "o": "lowerdir=/,upperdir=/tmp/u,workdir=/tmp/w", "device": "overlay"},
        {"type": "proc", "device": "proc"},
        {"o": "bind", "device": "/etc"},
    ],
)
def test_driver_options_of_a_volume_that_show_the_host_are_refused_whatever_is_granted(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path, options: dict[str, str]
) -> None:
    volume = {"name": "trick", "target": "/host", "driver_options": options}
    assert "volume_drivers" in Host(engine, tmp_path).denials(volumes=[volume])
    assert "directory or disk of the host" in Host(engine, tmp_path, volume_drivers=["local"]).denials(volumes=[volume])
    assert_nothing_left(docker_client)


@pytest.mark.docker
def test_a_volume_that_was_prepared_is_looked_at_before_it_is_used(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    docker_client.volumes.create("ready", driver_opts={"type": "none", "o": "bind", "device": "/etc"})
    volume = {"name": "ready", "target": "/host"}
    for policy in ({}, {"volume_drivers": ["local"]}):
        assert "ready is a directory" in Host(engine, tmp_path, **policy).denials(volumes=[volume])
    docker_client.volumes.get("ready").remove()
    docker_client.volumes.create("ready", driver_opts={"type": "tmpfs", "o": "size=1m", "device": "tmpfs"})
    assert "volume_drivers" in Host(engine, tmp_path).denials(volumes=[volume])
    assert Host(engine, tmp_path, volume_drivers=["local"]).make(volumes=[volume]).container.state == "running"


@pytest.mark.docker
def test_mounts_of_another_container_are_looked_at_before_they_are_taken_over(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    docker_client.containers.create(IMAGE, ["/bin/true"], name="prey", volumes=["/etc:/host"])
    docker_client.volumes.create("ready", driver_opts={"type": "none", "o": "bind", "device": "/etc"})
    docker_client.containers.create(IMAGE, ["/bin/true"], name="other", volumes=["ready:/host"])
    host = Host(engine, tmp_path, volumes_from=["prey", "other"])
    assert "it is /etc" in host.denials(volumes_from=["prey"])
    assert "ready is a directory" in host.denials(volumes_from=["other:ro"])
    assert "no container of that name" in host.denials(volumes_from=["absent"])


@pytest.mark.docker
def test_a_container_is_its_name_and_not_the_beginning_of_an_id(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    prey = docker_client.containers.run(IMAGE, ["/bin/sleep", "300"], detach=True, stop_signal="SIGKILL")
    beginning = str(prey.id)[:6]  # somebody's container had that name when it was granted, and has gone
    host = Host(engine, tmp_path, namespaces=[f"pid:container:{beginning}"], volumes_from=[beginning])
    assert "no container of that name" in host.denials(pid_mode=f"container:{beginning}")
    assert "no container of that name" in host.denials(volumes_from=[beginning])


@pytest.mark.docker
def test_a_network_is_its_name_and_not_an_id_that_means_the_hosts(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    (hosts_own,) = docker_client.networks.list(names=["host"])
    for name in (hosts_own.id, hosts_own.id[:12]):
        with pytest.raises(errors.EngineRefused, match="no network of that name") as caught:
            Host(engine, tmp_path).make(networks=[name])
        assert caught.value.kind == "no_such_network"
    assert_nothing_left(docker_client)


@pytest.mark.docker
def test_a_link_leads_where_it_leads(engine: Engine, tmp_path: Path, srv: Path) -> None:
    link = srv.parent / "link"
    host = Host(engine, tmp_path, binds=[{"source": srv}, {"source": link}])
    for target in ("/etc", "/", "/proc/self/root", "/var", "/dev/../etc", "/proc/1/root/etc"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert "binds.0" in host.denials(binds=[{"source": str(link), "target": "/host"}])
        assert "binds.0" in host.denials(binds=[{"source": f"{link}/", "target": "/host"}])
    link.unlink()
    link.symlink_to(srv)
    made = host.make(binds=[{"source": str(link), "target": "/host"}])
    (mount,) = engine.inspect(made.container.docker_id)["HostConfig"]["Mounts"]
    assert mount["Source"] == str(srv)


@pytest.mark.docker
def test_a_directory_is_granted_and_nothing_below_or_above_it(engine: Engine, tmp_path: Path, srv: Path) -> None:
    (srv / "below").mkdir()
    host = Host(engine, tmp_path, binds=[{"source": srv, "read_only": True}])
    for source in (srv / "below", srv.parent, srv / "here", f"{srv}/../other"):
        host.denials(binds=[{"source": str(source), "target": "/host", "read_only": True}])
    assert "binds = [{" in host.denials(binds=[{"source": str(srv), "target": "/host"}])
    made = host.make(
        binds=[{"source": f"{srv}/./below/..", "target": "/host", "read_only": True}],
        command=["/bin/sh", "-c", "cat /host/here && ! echo x > /host/new"],
    )
    assert host.tasks.wait(containers.WAIT.parse({"container": made.container.docker_id}), FakeRun()).exit_code == 0


def forbidden(engine: PrivateEngine, state: Path) -> list[str]:
    """Return paths that no policy grants, each in another way."""
    socket = engine.url.removeprefix("unix://")
    own = Path(socket).parent
    return [
        "/",
        "//",
        "/.",
        "/tmp/..",
        "/etc",
        "/etc/",
        "/etc/ssl",
        "/etc/passwd",
        "/proc",
        "/proc/1",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/shm",
        "/var",
        "/run",
        "/proc/self/root",
        socket,
        str(own),
        str(own / "data"),
        str(own / "data" / "volumes"),
        str(state),
        str(state.parent),
    ]


@pytest.mark.docker
def test_what_would_give_the_host_away_is_refused_whatever_is_granted(
    docker_engine: PrivateEngine, engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    for source in forbidden(docker_engine, tmp_path / "state"):
        host = Host(engine, tmp_path, binds=[{"source": source}])
        for read_only in (False, True):
            bind = {"source": source, "target": "/host", "read_only": read_only}
            said = host.denials(binds=[bind])
            assert "no policy grants that" in said, source
    assert_nothing_left(docker_client)


@pytest.mark.docker
def test_another_name_of_the_socket_or_a_second_mount_is_what_it_is(
    docker_engine: PrivateEngine, engine: Engine, tmp_path: Path, srv: Path
) -> None:
    hard = Path(docker_engine.url.removeprefix("unix://")).with_name("other.sock")
    os.link(docker_engine.url.removeprefix("unix://"), hard)
    elsewhere = srv / "copy"
    elsewhere.mkdir()
    subprocess.run(["mount", "--bind", "/etc", elsewhere], check=True)
    try:
        host = Host(
            engine, tmp_path, binds=[{"source": hard}, {"source": srv, "read_only": True}, {"source": elsewhere}]
        )
        assert "another name" in host.denials(binds=[{"source": str(hard), "target": "/d.sock"}])
        for source in (srv, elsewhere):
            said = host.denials(binds=[{"source": str(source), "target": "/host", "read_only": True}])
            assert "/etc is mounted there" in said
        subprocess.run(["umount", elsewhere], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", elsewhere], check=True)
        assert "proc" in host.denials(binds=[{"source": str(srv), "target": "/host", "read_only": True}])
    finally:
        subprocess.run(["umount", elsewhere], check=True)
        hard.unlink()


@pytest.mark.docker
def test_a_worker_that_does_not_see_the_hosts_files_grants_none_of_them(
    docker_engine: PrivateEngine, tmp_path: Path, srv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Engine):
        """An Engine whose directory is nowhere here, as it is for a worker in a container."""

        def ask(self, method: str, path: str, **options: Any) -> Any:
            answer = super().ask(method, path, **options)
            return {**answer, "DockerRootDir": "/nowhere/docker"} if path == "/info" else answer

    engine = Elsewhere(docker_engine.url)
    host = Host(engine, tmp_path, binds=[{"source": srv}], devices=["/dev/null"])
    assert "does not see the host's files" in host.denials(binds=[{"source": str(srv), "target": "/host"}])
    assert "does not see the host's files" in host.denials(devices=[{"source": "/dev/null"}])
    engine.close()


class Meddled(Engine):
    """An Engine of which somebody changes something between the look and the making."""

    meddle: Callable[[dict[str, Any]], None]

    def ask(self, method: str, path: str, **options: Any) -> Any:
        if path == "/containers/create":
            options["body"] = copy.deepcopy(options["body"])
            self.meddle(options["body"])
        return super().ask(method, path, **options)


@pytest.fixture
def meddled(docker_engine: PrivateEngine) -> Iterator[Meddled]:
    engine = Meddled(docker_engine.url)
    yield engine
    engine.close()


@pytest.mark.docker
def test_a_volume_that_is_changed_under_way_is_seen_before_the_start(
    meddled: Meddled, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    def swap(_body: dict[str, Any]) -> None:
        docker_client.volumes.get("data").remove()
        docker_client.volumes.create("data", driver_opts={"type": "none", "o": "bind", "device": "/etc"})

    meddled.meddle = swap
    with pytest.raises(errors.EngineRefused, match="data is a directory") as caught:
        Host(meddled, tmp_path).make(volumes=[{"name": "data", "target": "/data"}])
    assert caught.value.kind == "spec_mismatch"
    assert [c.name for c in docker_client.containers.list(all=True, ignore_removed=True)] == []


@pytest.mark.docker
def test_a_directory_that_becomes_a_link_under_way_is_seen_before_the_start(
    meddled: Meddled, docker_client: docker.DockerClient, tmp_path: Path, srv: Path
) -> None:
    def swap(_body: dict[str, Any]) -> None:
        srv.rename(srv.with_name("moved"))
        srv.symlink_to("/etc")

    meddled.meddle = swap
    with pytest.raises(errors.EngineRefused, match=r"it is /etc") as caught:
        Host(meddled, tmp_path, binds=[{"source": srv}]).make(binds=[{"source": str(srv), "target": "/data"}])
    assert caught.value.kind == "spec_mismatch"
    assert_nothing_left(docker_client)


@pytest.mark.docker
@pytest.mark.parametrize(
    "more",
    [
        {"Privileged": True},
        {"CapAdd": ["SYS_ADMIN"]},
        {"PidMode": "host"},
        {"IpcMode": "host"},
        {"UTSMode": "host"},
        {"NetworkMode": "host"},
        {"CgroupParent": "/batch"},
        {"Binds": ["/etc:/host"]},
        {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/host"}]},
        {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]},
        {"DeviceCgroupRules": ["c *:* rwm"]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"Sysctls": {"kernel.msgmax": "1"}},
        {"Runtime": "io.containerd.runc.v2"},
        {"MaskedPaths": []},
        {"ReadonlyPaths": []},
        {"OomScoreAdj": -900},
        {"GroupAdd": ["0"]},
        {"VolumesFrom": ["prey"]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_container_that_has_more_than_it_was_asked_for_is_removed_before_it_starts(
    meddled: Meddled, docker_client: docker.DockerClient, tmp_path: Path, more: dict[str, Any]
) -> None:
    docker_client.containers.create(IMAGE, ["/bin/true"], name="prey", volumes=["/etc:/host"])
    meddled.meddle = lambda body: body["HostConfig"].update(more)
    with pytest.raises(errors.EngineRefused, match=next(iter(more))) as caught:
        Host(meddled, tmp_path).make(volumes=[{"name": "fresh", "target": "/fresh"}])
    assert caught.value.kind == "spec_mismatch"
    assert_nothing_left(docker_client, but=("prey",))


@pytest.mark.docker
@pytest.mark.parametrize("start", [True, False])
def test_an_image_does_not_say_whom_its_container_replaces_or_who_made_it(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path, *, start: bool
) -> None:
    prey = docker_client.containers.run(
        IMAGE, ["/bin/sleep", "300"], name="postgres", detach=True, stop_signal="SIGKILL"
    )
    lies = {
        "fleet.replaces": prey.id,
        "fleet.replaces.running": "false",
        "fleet.run": "edge:another",
        "fleet.host": "another",
        "fleet.principal": "admin",
        "fleet.spec": "0",
        "fleet.managed": "no",
    }
    image = labelled(docker_client, lies)
    made = Host(engine, tmp_path).make(image=image, start=start).container
    assert {name for name, value in lies.items() if made.labels[name] == value} == set()
    assert made.labels["fleet.replaces"] == made.labels["fleet.replaces.running"] == ""
    prey.reload()
    assert (prey.name, prey.status) == ("postgres", "running")


@pytest.mark.docker
def test_a_container_with_a_label_of_fleets_that_nobody_asked_for_is_not_started(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    image = labelled(docker_client, {"fleet.tomorrow": "yes"})
    with pytest.raises(errors.EngineRefused, match=r"fleet\.tomorrow") as caught:
        Host(engine, tmp_path).make(image=image)
    assert caught.value.kind == "spec_mismatch"
    assert_nothing_left(docker_client)


@pytest.mark.docker
@pytest.mark.parametrize("said", ["postgres", "short"])
def test_a_label_that_is_no_full_id_replaces_nobody(
    meddled: Meddled, docker_client: docker.DockerClient, tmp_path: Path, said: str
) -> None:
    prey = docker_client.containers.run(
        IMAGE, ["/bin/sleep", "300"], name="postgres", detach=True, stop_signal="SIGKILL"
    )
    reference = said if said == "postgres" else prey.id[:12]
    meddled.meddle = lambda body: body["Labels"].update({"fleet.replaces": reference})
    with pytest.raises(errors.EngineRefused, match=r"fleet\.replaces") as caught:
        Host(meddled, tmp_path).make()
    assert caught.value.kind == "spec_mismatch"
    assert_nothing_left(docker_client, but=("postgres",))
    assert replaced(meddled.inspect("postgres") | {"Config": {"Labels": {"fleet.replaces": reference}}}) is None


def labelled(client: docker.DockerClient, labels: dict[str, str]) -> str:
    """Return an image that has these labels."""
    container = client.containers.create(IMAGE, ["/bin/true"])
    quoted = "\n".join(f'LABEL "{name}"="{value}"' for name, value in labels.items())
    image = container.commit(repository="fleet-test/labelled", tag="latest", changes=quoted)
    container.remove()
    assert image.labels == labels
    return "fleet-test/labelled:latest"
