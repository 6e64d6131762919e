"""Links on a host: what an entry says of a directory holds by whatever name the directory is reached."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet import errors, policy
from fleet.contracts.files import GET, LIST, PUT
from fleet.contracts.reports import Kind
from fleet.policy import HostPolicy
from fleet.policy import host as of_owner
from fleet.security.identity import Level, PrincipalIdentity
from tests import factories
from tests.services.commands import Shell
from tests.services.runs import KeptRun
from tests.services.sessions import Session
from workers.host.files.never import Never
from workers.host.governing import Governor
from workers.host.ruling import Ruling
from workers.host.tasks.files import FileTasks, GrantedFiles
from workers.host.tasks.wiring import granted_files

SECRET = b"the key of the service"
BOB = PrincipalIdentity(key="b" * 43, issued_at=1.0, name="bob", level=Level.AUTONOMOUS, serial=1, expires_at=4e9)


class Judge(Governor):
    """Governs bob's requests, who is nobody that a message of these tests would have to show."""

    def current_requester(self, _item: str) -> PrincipalIdentity:
        return BOB


@dataclass
class Disk:
    """An application whose release has keys, and a link to the release."""

    app: Path
    session: Session
    shell: Shell

    @property
    def keys(self) -> Path:
        return self.app / "releases" / "7" / "keys"

    def rule(self, fleets: str, *, owners: str = "") -> None:
        """Have these policies count."""
        own = factories.own(self.app.parent / "credential.json", "h1")
        ruling = Ruling(self.app.parent / "policy.json", own)
        ruling.learn(policy.state(fleets, ruling.version + 1, [factories.key("fleet")]))
        self.governor = Judge(
            own=own,
            ruling=ruling,
            host_policy=of_owner.parse(owners) if owners else HostPolicy(),
            clock=self.session.time,
            takes_commands=True,
            mask=lambda text: text.replace("hunter2", "***"),
        )
        commands: Any = self.shell.pipeline._commands
        commands._governor, commands._paths_in = self.governor, policy.paths_in

    def touch(self, task: str, path: Path, **more: str) -> Any:
        """Carry out a task about a file, as a run that the guard has let in."""
        arguments = {"path": str(path), **more}
        claim = self.session.begun(task=task, arguments=arguments)
        tasks = FileTasks(notes=self.app.parent / "notes", never=Never(()))
        performer = GrantedFiles(tasks, granted_files(self.session.journal, self.governor)).performers()[task]
        contract = {each.name: each for each in (LIST, GET, PUT)}[task]
        return performer(contract.parse(arguments), KeptRun(run_id=claim.run_id))

    def get(self, path: Path) -> bytes:
        return base64.b64decode(self.touch(GET.name, path).content)

    def put(self, path: Path) -> None:
        self.touch(PUT.name, path, content=base64.b64encode(b"new").decode())

    def refused(self, task: str, path: Path) -> errors.NotGranted:
        """Return why a task about a file is refused."""
        more = {"content": ""} if task == PUT.name else {}
        with pytest.raises(errors.NotGranted) as caught:
            self.touch(task, path, **more)
        return caught.value

    def cat(self, path: Path) -> str:
        """Return what a command shows of a file, or the kind of its failure."""
        run_id = self.shell.begin("/bin/cat", str(path))
        if self.shell.until_ended(run_id) is Kind.RUN_SUCCEEDED:
            return str(self.session.reports(run_id)[-1].data["reply"]["stdout"])
        self.detail = self.shell.record(run_id).detail
        assert self.shell.record(run_id).outcome == "failed"
        assert Kind.SESSION_STARTED not in self.session.kinds(run_id)
        return str(self.session.reports(run_id)[-1].data["kind"])


@pytest.fixture
def disk(session: Session, client: Any, tmp_path: Path) -> Iterator[Disk]:
    app = tmp_path.resolve() / "app"
    (app / "releases" / "7" / "keys").mkdir(parents=True)
    (app / "releases" / "7" / "keys" / "tls.key").write_bytes(SECRET)
    (app / "releases" / "7" / "notes").write_text("harmless")
    (app / "current").symlink_to("releases/7")
    (app / "the-key").symlink_to("releases/7/keys/tls.key")
    (app / "the-notes").symlink_to("current/notes")
    with Shell(session, client, tmp_path).at_work() as shell:
        yield Disk(app, session, shell)


def files(name: str, root: Path, decision: str = "", may: str = '"list", "get", "put"') -> str:
    stricter = f'decision = "{decision}"\n' if decision else ""
    return f'[[files]]\nname = "{name}"\nroot = "{root}"\nmay = [{may}]\n{stricter}'


def cat(name: str, root: Path, decision: str = "") -> str:
    stricter = f'decision = "{decision}"\n' if decision else ""
    return f'[[commands]]\nname = "{name}"\nrisk = "reads"\nargv = ["/bin/cat", {{ path = "{root}" }}]\n{stricter}'


def both(name: str, root: Path, decision: str = "") -> str:
    return files(name, root, decision) + cat(f"cat {name}", root, decision)


#: The words for what is refused, by what the entry about the keys says.
KINDS = {"deny": "denied", "ask": "needs_approval"}


@pytest.mark.parametrize("decision", KINDS)
@pytest.mark.parametrize("by", ["the fleet", "the host's owner", "a rule of the host's owner"])
class TestAnEntryForADirectoryBelow:
    @pytest.fixture(autouse=True)
    def _ruled(self, disk: Disk, decision: str, by: str) -> None:
        app, keys = both("app", disk.app), both("keys", disk.keys, decision)
        rule = f'[[rules]]\nname = "no keys"\ndecision = "{decision}"\ncommands = ["keys", "cat keys"]\n'
        match by:
            case "the fleet":
                disk.rule(app + keys)
            case "the host's owner":
                disk.rule(app, owners=both("app", disk.app) + both("keys", disk.keys, decision))
            case _:
                disk.rule(app + both("keys", disk.keys), owners=rule)

    def test_is_not_passed_by_a_link_to_a_file_or_directory(self, disk: Disk, decision: str, by: str) -> None:
        for task, path, real in (
            (GET.name, disk.app / "current/keys/tls.key", disk.keys / "tls.key"),
            (GET.name, disk.app / "the-key", disk.keys / "tls.key"),
            (LIST.name, disk.app / "current/keys", disk.keys),
            (PUT.name, disk.app / "current/keys/tls.key", disk.keys / "tls.key"),
            (PUT.name, disk.app / "current/keys/new", disk.keys / "new"),
        ):
            said = disk.refused(task, path)
            assert said.kind == KINDS[decision]
            assert f"{path} leads to {real}" in said.message
            assert "keys" in said.message.partition(f"{real}")[2]
            assert ("ask for it by that path" in said.remedy) is (decision == "ask")
        assert (disk.keys / "tls.key").read_bytes() == SECRET
        assert [each.name for each in disk.keys.iterdir()] == ["tls.key"]

    def test_is_not_passed_by_a_link_in_an_argument(self, disk: Disk, decision: str, by: str) -> None:
        for name in ("current/keys/tls.key", "the-key"):
            assert disk.cat(disk.app / name) == KINDS[decision]
            assert f"{disk.app / name} leads to {disk.keys / 'tls.key'}" in disk.detail
            assert "keys" in disk.detail.partition("tls.key")[2]

    def test_leaves_links_that_lead_elsewhere_alone(self, disk: Disk, decision: str, by: str) -> None:
        for name in ("current/notes", "the-notes", "releases/7/notes"):
            assert disk.get(disk.app / name) == b"harmless"
            assert disk.cat(disk.app / name) == "harmless"
        assert {each.name for each in disk.touch(LIST.name, disk.app / "current").entries} == {"keys", "notes"}
        disk.put(disk.app / "current/notes")
        assert (disk.app / "releases/7/notes").read_text() == "new"


def test_a_granted_directory_that_is_a_link_itself_is_granted(disk: Disk) -> None:
    disk.rule(both("current", disk.app / "current"), owners=both("release", disk.app / "current"))
    assert disk.get(disk.app / "current/notes") == b"harmless"
    assert disk.cat(disk.app / "current/notes") == "harmless"
    disk.put(disk.app / "current/new")
    assert (disk.app / "releases/7/new").read_text() == "new"


@pytest.mark.parametrize("decision", KINDS)
def test_an_entry_that_names_its_directory_by_a_link_is_about_that_directory(disk: Disk, decision: str) -> None:
    disk.rule(both("app", disk.app) + both("keys", disk.app / "current/keys", decision))
    for path in (disk.keys / "tls.key", disk.app / "the-key"):
        assert disk.refused(GET.name, path).kind == KINDS[decision]
        assert disk.cat(path) == KINDS[decision]
    assert disk.get(disk.app / "current/notes") == b"harmless"


def test_the_hosts_owner_is_heard_also_where_the_fleet_names_the_directory_by_a_link(disk: Disk) -> None:
    owners = both("app", disk.app) + both("keys", disk.keys, "deny")
    disk.rule(both("current", disk.app / "current"), owners=owners)
    said = disk.refused(GET.name, disk.app / "current/keys/tls.key")
    assert (said.kind, "the host's own policy" in said.message) == ("denied", True)
    assert disk.cat(disk.app / "current/keys/tls.key") == "denied"


def test_a_link_out_of_the_granted_directory_is_refused_also_into_another(disk: Disk) -> None:
    other = disk.app.parent / "other"
    other.mkdir()
    (other / "file").write_text("other")
    (disk.app / "out").symlink_to("../other/file")
    disk.rule(both("app", disk.app) + both("other", other))
    assert disk.get(other / "file") == b"other"
    assert disk.refused(GET.name, disk.app / "out").kind == "outside"
    assert disk.cat(disk.app / "out") == "not_granted"


def test_what_is_removed_while_it_is_open_is_judged_by_the_path_that_it_had(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denied file, not a directory: behind its name the kernel says that it is gone."""
    disk.rule(files("app", disk.app) + files("the key", disk.keys / "tls.key", "deny"))
    from workers.host.files import beneath

    opened = beneath.kernel.open_beneath

    def open_and_remove(directory: int, path: str) -> int:
        descriptor = opened(directory, path)
        (disk.keys / "tls.key").unlink()
        return descriptor

    monkeypatch.setattr(beneath.kernel, "open_beneath", open_and_remove)
    assert disk.refused(GET.name, disk.app / "the-key").kind == "denied"


def test_a_file_whose_name_ends_as_the_kernel_shows_removed_ones_is_read(disk: Disk) -> None:
    disk.rule(files("app", disk.app))
    (disk.app / "notes (deleted)").write_text("there")
    assert disk.get(disk.app / "notes (deleted)") == b"there"


def test_no_known_secret_is_in_what_is_said_of_a_link(disk: Disk) -> None:
    (disk.keys / "hunter2").write_text("x")
    (disk.app / "link").symlink_to("releases/7/keys/hunter2")
    disk.rule(both("app", disk.app) + both("keys", disk.keys, "deny"))
    assert f"leads to {disk.keys}/***" in disk.refused(GET.name, disk.app / "link").message
