"""Secrets: after a life with everything in it, none lies where it does not belong."""

import base64
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from fleet import address, names, tokens
from fleet.contracts.credentials import HostCredential, PrincipalCredential
from tests.hostile.siege import EFFECT, Siege
from tests.integration.test_flower import Window
from tests.services import forks, locked
from tests.services.finding import contents
from tests.services.waiting import until

#: Where Flower shows something.
PAGES = ("/", "/workers", "/worker/h1@fleet", "/tasks", "/broker", "/api/workers", "/api/tasks", "/metrics")
#: What a program finds in its environment of the settings that it was started with, and by right: the operator gave the
#: control worker and Flower the password of their own broker user so. Whoever may read it is their user, or root.
GIVEN = {"control": "FLEET_BROKER_URL", "flower": "FLEET_BROKER_URL"}


@dataclass
class Life:
    """What was used in a life, and what is to be seen of it from outside."""

    #: name → secret
    used: dict[str, str] = field(default_factory=dict)
    #: place → what lies there
    seen: dict[str, bytes] = field(default_factory=dict)

    def holds(self, name: str, held: HostCredential | PrincipalCredential) -> None:
        self.used[f"private key of {name}"] = held.private_key.get_secret_value()
        self.used[f"password of {name}"] = str(address.parse(held.broker_url.get_secret_value()).password)

    def signs(self, path: Path) -> None:
        for number, key in enumerate(json.loads(path.read_text())["keys"]):
            self.used[f"signing key {number} of {path.stat().st_mtime_ns}"] = key

    def look(self, process: psutil.Process) -> None:
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{process.pid}/{name}").read_bytes()
            except OSError:
                continue
            self.seen[
                f"{name} of {process.pid} {text[-60:]!r}" if name == "cmdline" else f"environ of {process.pid}"
            ] = text


@pytest.fixture(scope="module", autouse=True)
def _real_starts() -> Iterator[None]:
    """Their command lines and environments are looked at."""
    with forks.real_starts():
        yield


@pytest.fixture(scope="module")
def life(siege: Siege) -> Life:
    """Token, enrollment by the command line, worker, pushes, rotations of all keys, revocation, and Flower."""
    found = Life()
    made = siege.command("token", "create", "--host-id", "h4", "-o", "json")
    token = next(word for word in made.stdout.replace('"', " ").split() if word.startswith("fleet."))
    unused = siege.token()
    for name, text in (("token", token), ("unused token", unused)):
        parsed = tokens.parse(text)
        found.used |= {name: text, f"secret of {name}": parsed.secret, f"login of {name}": parsed.broker_password()}
    file = siege.directory / "token"
    file.write_text(token)
    enrolled = siege.command("enroll", "--token-file", str(file), "--host-id", "h4")
    assert enrolled.returncode == 0, enrolled.stderr
    file.unlink()
    again = siege.command("enroll", token, "--host-id", "h5")  # used up: the refusal must not repeat it
    assert again.returncode != 0
    mistyped = siege.command("enroll", token[:-1] + "!", "--host-id", "h5")
    assert mistyped.returncode != 0
    found.seen |= {"refusal": again.stderr.encode(), "refusal of a mistyped one": mistyped.stderr.encode()}

    siege.start_worker("h4")
    for host in ("h1", "h2", "h4"):
        found.holds(f"{host} at first", siege.held_by_host(host))
    found.holds("alice at first", siege.held_by("alice"))
    found.holds("bob", siege.known("bob"))
    found.signs(siege.settings.signing_keys_path)
    window = Window(locked.url(siege.broker, "flower"), siege.directory / "flower")
    found.used["Flower's password"] = window.password
    found.used |= {f"password of {user}": locked.password(user) for user in ("control", "flower")}
    for host in ("h1", "h4"):
        siege.works(host)
    long = siege.fleet.push(EFFECT, on="h4", arguments={"log": str(siege.effects), "seconds": 30}).run_ids[0]
    until(lambda: siege.ran(long), "it runs")
    for process in [psutil.Process(part.process.pid) for part in siege.parts if part.process.poll() is None]:
        for each in (process, *process.children(recursive=True)):
            found.look(each)
    found.look(psutil.Process(window.process.pid))
    for process in psutil.process_iter():  # supervisors have left their worker's family
        if str(siege.directory) in " ".join(command_of(process)):
            found.look(process)

    before = siege.mark()
    for words in (("host", "rotate", "h1"), ("key", "rotate"), ("principal", "rotate", "alice")):
        done = siege.command(*words)
        assert done.returncode == 0, done.stderr
        found.seen[" ".join(words)] = (done.stdout + done.stderr).encode()
    siege.heard("host.credential_taken", after=before)
    siege.works()
    for words in (
        ("host", "revoke", "h4", "--yes"),
        ("principal", "revoke", "bob", "--yes"),
        ("token", "list"),
        ("doctor",),
    ):
        done = siege.command(*words)
        found.seen[" ".join(words)] = (done.stdout + done.stderr).encode()
    found.holds("h1 at last", siege.held_by_host("h1"))
    found.holds("alice at last", siege.held_by("alice"))
    found.signs(siege.settings.signing_keys_path)
    for page in PAGES:
        _status, text = window.ask(page, password=window.password)
        found.seen[f"Flower's {page}"] = text.encode()
    assert window.stop() == 0
    found.seen["Flower's log"] = window.log.read_bytes()
    for part in siege.parts:
        found.seen[f"log {part.log.name}"] = part.log.read_bytes()
    see_files(siege, found)
    return found


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def see_files(siege: Siege, found: Life) -> None:
    database = siege.directory / "fleet.db"
    with sqlite3.connect(database) as connection:
        found.seen["a dump of the database"] = "\n".join(connection.iterdump()).encode()
    for path in siege.directory.glob("fleet.db*"):
        found.seen[path.name] = path.read_bytes()
    for path, content in contents(siege.directory / "hosts"):
        if path.name.startswith("journal.db") or "spool" in path.parts:
            found.seen[str(path.relative_to(siege.directory))] = content
    save: Any = siege.redis.execute_command
    save("BGREWRITEAOF")
    until(lambda: not rewrites(siege), "the file is rewritten")
    save("SAVE")
    for path, content in contents(siege.broker.directory):
        found.seen[f"broker's {path.name}"] = content
    for name in ("server.log", "users.acl", "dump.rdb"):
        assert f"broker's {name}" in found.seen
    assert any("appendonly" in name for name in found.seen)


def rewrites(siege: Siege) -> bool:
    """Say whether the broker's append-only file is being written anew, or will be."""
    told: Any = siege.redis.info("persistence")
    return bool(told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])


def forms(secret: str) -> list[bytes]:
    """Return the ways in which a secret may be written."""
    plain = secret.encode()
    return [
        plain,
        quote(secret, safe="").encode(),
        json.dumps(secret)[1:-1].encode(),
        plain.hex().encode(),
        base64.b64encode(plain).rstrip(b"="),
        base64.urlsafe_b64encode(plain).rstrip(b"="),
    ]


def test_a_secret_that_lay_there_would_be_found(life: Life) -> None:
    """The other half of the next test: all was used, and everything was looked at."""
    assert len(set(life.used.values())) >= 20
    assert min(len(secret) for name, secret in life.used.items() if name != "password of control") >= 16
    for place in ("log control-0.log", "a dump of the database", "broker's users.acl", "Flower's /api/workers"):
        assert life.seen[place], place
    for place, mark in (("cmdline", b"\0worker\0--host-id\0"), ("environ", b"FLEET_STATE_DIR=")):
        assert any(mark in text for name, text in life.seen.items() if name.startswith(place)), place
    assert b"host.enrolled" in life.seen["a dump of the database"]


def test_no_secret_is_found_anywhere(life: Life, siege: Siege) -> None:
    given = {f"password of {user}" for user in GIVEN}
    leaks = [
        (name, place)
        for name, secret in life.used.items()
        for place, text in life.seen.items()
        if not (name in given and place.startswith("environ")) and any(form in text for form in forms(secret))
    ]
    assert leaks == []


def test_what_the_environment_of_a_process_holds_is_its_own_login_alone(life: Life, siege: Siege) -> None:
    for place, text in life.seen.items():
        if not place.startswith("environ"):
            continue
        held = [user for user in GIVEN if locked.password(user).encode() in text]
        assert len(held) <= 1, place
        if held:
            assert f"{GIVEN[held[0]]}=redis://{held[0]}:".encode() in text


def test_the_broker_and_the_database_have_hashes_of_passwords_alone(life: Life, siege: Siege) -> None:
    users = life.seen["broker's users.acl"].decode()
    for line in users.splitlines():
        name, *words = line.split()[1:]
        assert not [word for word in words if word.startswith((">", "<"))], name
    assert names.ENROLL_REQUESTS not in [str(key) for key in siege.redis.scan_iter(match="fleet:enroll:*")]


def test_files_with_secrets_are_their_owners_alone(life: Life, siege: Siege) -> None:
    secret = [form for value in life.used.values() for form in forms(value)[:1]]
    holding = [path for path, content in contents(siege.directory) if any(each in content[: 2**20] for each in secret)]
    assert holding
    for path in holding:
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_uid == os.getuid()
