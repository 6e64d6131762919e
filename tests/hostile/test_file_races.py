"""Hostile hands on a granted directory: whatever they do to the names in it, nothing outside is read or written."""

import base64
import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet import errors
from fleet.contracts.files import GET, LIST, PUT, PutFile
from fleet.settings import Settings
from tests.services.granted_files import Grant, Host, refused
from workers.host import kernel
from workers.host.containers.engine import Engine
from workers.host.files import beneath
from workers.host.tasks.wiring import file_tasks

CANARY = b"canary"
TRIES = 1000


@pytest.fixture(params=[True, False], ids=["openat2", "step by step"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host with a canary outside of what is granted, on a kernel with openat2 and without it.

    In memory, where that can be had: some thousand files are synced to the disk.
    """
    if request.param and not kernel.opens_beneath():
        pytest.skip("this kernel has no openat2")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        made = Host(Path(directory), follows_links=request.param)
        (made.outside / "file").write_bytes(CANARY)
        (made.state / "credential.json").write_bytes(CANARY)
        yield made


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something over and over in another thread; at least once before the block begins."""
    over, begun = threading.Event(), threading.Event()

    def repeat() -> None:
        while not over.is_set():
            act()
            begun.set()

    thread = threading.Thread(target=repeat)
    thread.start()
    begun.wait(30)
    try:
        yield
    finally:
        over.set()
        thread.join()


def exchange(one: Path, other: Path) -> Callable[[], None]:
    """Return what swaps two names in one step (renameat2, RENAME_EXCHANGE), so that each is always there."""
    libc = ctypes.CDLL(None, use_errno=True)

    def swap() -> None:
        assert libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0, os.strerror(ctypes.get_errno())

    return swap


def attempt(act: Callable[[], object]) -> str:
    """Return the word for how it was refused; empty where it went well, which must not have shown the canary."""
    try:
        assert act() != CANARY
    except errors.TaskFailed as exc:
        return exc.kind
    return ""


def race(act: Callable[[], object], *, until_both: bool = True) -> None:
    """Do it `TRIES` times, and on until it has gone well and been refused at least once: else it was no race."""
    seen: dict[str, int] = {}
    while sum(seen.values()) < TRIES or (until_both and (not seen.get("") or len(seen) < 2)):
        kind = attempt(act)
        seen[kind] = seen.get(kind, 0) + 1
    assert set(seen) <= {"", "outside", "no_such_file", "no_such_directory", "not_a_file", "not_a_directory"}, seen


def content(host: Host, path: Path) -> bytes:
    return base64.b64decode(host.get(path).content)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_directory_that_is_swapped_with_a_link_leads_nowhere(host: Host, *, absolute: bool) -> None:
    inside = host.root / "way"
    inside.mkdir()
    (inside / "file").write_bytes(b"inside")
    link = host.root / "link"
    link.symlink_to(host.outside if absolute else "../outside")
    with meanwhile(exchange(inside, link)):
        race(lambda: content(host, inside / "file"))
        race(lambda: host.put(inside / "file", b"from afar"))
        race(lambda: host.list(inside))
    assert (host.outside / "file").read_bytes() == CANARY
    assert [each.name for each in host.outside.iterdir()] == ["file"]


def test_a_file_that_is_swapped_with_a_link_is_not_written_through_it(host: Host) -> None:
    target, next_one = host.root / "file", host.root / "next"

    def change() -> None:
        """Have a link there and then a file, also after a put has replaced either."""
        next_one.symlink_to("../outside/file")
        next_one.rename(target)
        next_one.write_bytes(b"inside")
        next_one.rename(target)

    with meanwhile(change):
        race(lambda: content(host, target))
        race(lambda: host.put(target, b"from afar"))
    assert (host.outside / "file").read_bytes() == CANARY


def test_a_file_that_is_swapped_with_a_fifo_holds_nobody_up(host: Host) -> None:
    """Whoever opens a FIFO to read waits for its writer, for ever."""
    target, fifo = host.root / "file", host.root / "fifo"
    target.write_bytes(b"inside")
    os.mkfifo(fifo)
    with meanwhile(exchange(target, fifo)):
        race(lambda: content(host, target))


def test_a_directory_that_is_moved_out_under_way_leads_nowhere(host: Host) -> None:
    """With `..` in a link: the kernel must not leave by it when the directory is elsewhere by then."""
    deep = host.root / "one" / "two"
    deep.mkdir(parents=True)
    (host.root / "file").write_bytes(b"inside")
    (deep / "up").symlink_to("../../file")
    away = host.outside / "two"

    def move() -> None:
        deep.rename(away)
        away.rename(deep)

    with meanwhile(move):
        race(lambda: content(host, deep / "up"), until_both=host.tasks._follows_links is True)
    assert (host.outside / "file").read_bytes() == CANARY


def test_links_are_followed_below_the_directory_and_nowhere_else(host: Host) -> None:
    (host.root / "file").write_bytes(b"inside")
    (host.root / "sub").mkdir()
    links = {
        "relative": ("file", True),
        "sub/up": ("../file", True),
        "absolute": (str(host.root / "file"), False),
        "out": ("../outside/file", False),
        "far": ("/etc/passwd", False),
        "through": ("../root/file", False),
        "magic": ("/proc/self/root/etc/passwd", False),
        "loop": ("loop", False),
    }
    follows = host.tasks._follows_links
    for name, (leads, stays) in links.items():
        (host.root / name).symlink_to(leads)
        if stays and follows:
            assert content(host, host.root / name) == b"inside"
        else:
            said = refused("outside", lambda name=name: host.get(host.root / name))
            assert "link" in said


def test_a_path_that_is_not_below_the_directory_is_refused_by_its_words(host: Host) -> None:
    for path in (host.outside / "file", f"{host.root}2/file", "/", host.root.parent):
        refused("outside", lambda path=path: host.get(path))
        refused("outside", lambda path=path: host.list(path))
    for contract, more in ((GET, {}), (LIST, {}), (PUT, {"content": ""})):
        for path in (
            "relative",
            f"{host.root}/../outside/file",
            f"{host.root}//file",
            f"{host.root}/./file",
            "/x\0y",
            "/x/",
        ):
            with pytest.raises(errors.InvalidArguments):
                contract.parse({"path": path, **more})
    with pytest.raises(errors.NotGranted):  # past the contract
        beneath.below(f"{host.root}/../outside/file", str(host.root))


def test_the_whole_host_granted_is_still_without_fleets_own_and_the_kernels(host: Host) -> None:
    host.notes.mkdir()
    for path in (host.state / "credential.json", host.state / "new", host.notes / "x"):
        refused("never_granted", lambda path=path: host.put(path, root="/"))
    refused("never_granted", lambda: host.get(host.state / "credential.json", root="/"))
    refused("never_granted", lambda: host.list(host.state, root="/"))
    for path in (f"/proc/{os.getpid()}/environ", "/proc/1/maps", "/proc/sys/kernel/hostname", "/sys/kernel/notes"):
        if Path(path).is_file():
            refused("never_granted", lambda path=path: host.get(path, root="/"))
    refused("never_granted", lambda: host.put("/proc/sys/kernel/hostname", root="/"))
    refused("never_granted", lambda: host.put(f"/proc/{os.getpid()}/comm", root="/"))
    assert (host.state / "credential.json").read_bytes() == CANARY
    assert base64.b64decode(host.get(host.outside / "file", root="/").content) == CANARY


def test_the_magic_links_of_proc_lead_nowhere(host: Host) -> None:
    for path in ("/proc/self/root/etc/passwd", "/proc/self/cwd", f"/proc/{os.getpid()}/fd/0", "/proc/thread-self/exe"):
        for root in ("/", "/proc"):
            with pytest.raises(errors.NotGranted) as caught:
                host.get(path, root=root)
            assert caught.value.kind in {"outside", "never_granted"}


def test_a_place_of_fleets_own_that_is_not_there_yet_cannot_be_made(tmp_path: Path) -> None:
    policy = tmp_path / "root" / "policy.toml"
    host = Host(tmp_path, never=[policy])
    refused("never_granted", lambda: host.put(policy, b"[files]"))
    assert not policy.exists()
    host.put(host.root / "other")


def test_a_second_name_of_fleets_own_file_is_recognized(host: Host) -> None:
    os.link(host.state / "credential.json", host.root / "innocent")
    refused("never_granted", lambda: host.get(host.root / "innocent"))
    refused("never_granted", lambda: host.put(host.root / "innocent"))
    os.link(host.outside / "file", host.root / "other")  # nothing of Fleet's: whoever may link may as well copy
    assert content(host, host.root / "other") == CANARY


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts something")
def test_a_second_mount_of_fleets_own_is_recognized(host: Host) -> None:
    (host.state / "deep").mkdir()
    (host.state / "deep" / "key").write_bytes(CANARY)
    script = (
        f"mount --bind {host.state}/deep {host.root}/mounted && PYTHONPATH=. {sys.executable} -c '"
        "from tests.services.granted_files import Host, refused; from pathlib import Path;"
        f'h = Host(Path("{host.root.parent}"));'
        'refused("never_granted", lambda: h.get(h.root / "mounted" / "key"));'
        'refused("never_granted", lambda: h.list(h.root / "mounted"));'
        'refused("never_granted", lambda: h.put(h.root / "mounted" / "key"));'
        'print("refused")\''
    )
    (host.root / "mounted").mkdir()
    # in a name space of its own, so that nothing stays mounted
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="opens what is root's")
def test_a_host_grants_none_of_dockers_or_fleets_own_places(tmp_path: Path) -> None:
    """As a session wires it, with the whole host granted."""
    settings = Settings(
        state_dir=tmp_path / "state",
        secrets_dir=tmp_path / "secrets",
        policy_file=tmp_path / "policy.toml",
        signing_keys=tmp_path / "keys.json",
        host_id="edge",
    )
    (tmp_path / "state" / "hosts" / "edge").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    tasks = file_tasks(settings, Engine(f"unix://{tmp_path}/docker.sock"), host="edge")
    own = ("state/hosts/edge/credential.json", "state/x", "secrets/x", "policy.toml", "keys.json", "docker.sock")
    others = (
        "/var/lib/docker/x",
        "/var/lib/docker/containers/x",
        "/var/lib/containerd/x",
        "/etc/fleet/x",
        "/run/docker.sock",
    )
    for path in (*(str(tmp_path / each) for each in own), *others):
        if Path(path).parent.is_dir():
            request = PutFile(path=path, content="")
            refused("never_granted", lambda request=request: tasks.put(request, Grant("/"), "edge:1"))
    request = PutFile(path=str(tmp_path / "other"), content="")
    assert tasks.put(request, Grant("/"), "edge:1").size == 0
