"""Flower as Fleet runs it: it hears every host, wants a password everywhere, and can change nothing."""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet import address, names
from fleet.broker import app as broker_app
from tests.services import forks
from tests.services.broker import Broker
from tests.services.ports import free_ports
from tests.services.up import PAUSE, START_SECONDS
from tests.services.waiting import until

CHANGES = [
    "/api/task/apply/fleet.host.ping",
    "/api/task/async-apply/fleet.host.ping",
    "/api/task/send-task/fleet.host.ping",
    "/api/task/abort/edge-1:x",
    "/api/task/revoke/edge-1:x",
    "/api/task/timeout/fleet.host.ping",
    "/api/task/rate-limit/fleet.host.ping",
    "/api/worker/shutdown/edge-1@fleet",
    "/api/worker/pool/grow/edge-1@fleet",
    "/api/worker/queue/add-consumer/edge-1@fleet",
]
READS = ["/", "/workers", "/worker/edge-1@fleet", "/tasks", "/broker", "/api/workers", "/api/tasks", "/metrics"]


class Window:
    """A `fleet flower`."""

    def __init__(self, broker_url: str, state: Path) -> None:
        (self.port,) = free_ports(1)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        self.environment = {**inherited, "FLEET_BROKER_URL": broker_url, "FLEET_STATE_DIR": str(state)}
        self.log = state.with_suffix(".log")
        self.state = state
        with self.log.open("wb") as log:
            words = ["flower", "--port", str(self.port)]
            self.process = forks.start(words, env=self.environment, output=log, errors=log)
        self.wait_for("flower.started")

    def wait_for(self, event: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while event not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            PAUSE.wait(0.02)

    @property
    def password(self) -> str:
        return (self.state / "flower.password").read_text().strip()

    def ask(self, path: str, *, data: bytes | None = None, password: str | None = None) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data)
        if password is not None:
            request.add_header("Authorization", f"Basic {b64encode(f'fleet:{password}'.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()

    def json(self, path: str) -> Any:
        status, text = self.ask(path, password=self.password)
        assert status == 200, self.log.read_text()
        return json.loads(text)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=START_SECONDS)

    def end(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Speaker:
    """Publishes events as the worker of one host does."""

    def __init__(self, broker_url: str, host: str) -> None:
        app = broker_app.make(
            "speaker",
            broker=address.parse(broker_url),
            transport="redis",
            transport_options={"fanout_prefix": names.fanout_prefix(host)},
        )
        self._node = names.worker_node(host)
        self._connection = app.connection_for_write()
        self._dispatcher = app.events.Dispatcher(self._connection, hostname=self._node)

    def beat(self) -> None:
        """Say that a worker is there."""
        self._dispatcher.send("worker-heartbeat", freq=10, active=0, processed=1, loadavg=(0.1, 0.1, 0.1), sw_ident="f")

    def work(self) -> None:
        """Say that it has run one task."""
        run = f"{self._node.partition('@')[0]}:01a1fd10-8b9d-7cb1-ba2b-2607117db187"
        self._dispatcher.send("task-received", uuid=run, name="fleet.host.ping", args="[]", kwargs="{}")
        self._dispatcher.send("task-succeeded", uuid=run, result="{}", runtime=0.25)

    def close(self) -> None:
        self._dispatcher.disable()
        self._connection.release()


@pytest.fixture
def window(any_broker: Broker, tmp_path: Path) -> Iterator[Window]:
    opened = Window(any_broker.url, tmp_path / "state")
    yield opened
    opened.end()


def heard(window: Window, broker_url: str, *hosts: str) -> None:
    """Let hosts speak until Flower has heard them, and then of their work: it may still be subscribing."""
    speakers = [Speaker(broker_url, host) for host in hosts]
    wanted = {names.worker_node(host) for host in hosts}

    def all_are_known() -> bool:
        for speaker in speakers:
            speaker.beat()
        return wanted <= set(window.json("/api/workers"))

    until(all_are_known, "Flower knows the hosts", timeout=START_SECONDS)
    for speaker in speakers:
        speaker.work()
        speaker.close()

    def all_have_worked() -> bool:
        tasks = window.json("/api/tasks").values()
        return wanted <= {task["worker"] for task in tasks if task["state"] == "SUCCESS"}

    until(all_have_worked, "Flower knows of their tasks", timeout=START_SECONDS)


def test_it_hears_every_host_by_one_subscription_and_writes_nothing(window: Window, any_broker: Broker) -> None:
    heard(window, any_broker.url, "edge-1", "edge-2")
    tasks = window.json("/api/tasks")
    states = {(task["worker"], task["name"], task["state"]) for task in tasks.values()}
    assert states == {(f"edge-{n}@fleet", "fleet.host.ping", "SUCCESS") for n in (1, 2)}
    with any_broker.connect() as client:
        mine = [one for one in client.client_list() if one["psub"] == "1"]
        assert len(mine) == 1
        assert client.keys("*") in ([], [b"_kombu.binding.celeryev"])  # the speaker's


def test_a_worker_s_page_is_made_of_its_events(window: Window, any_broker: Broker) -> None:
    heard(window, any_broker.url, "edge-1")
    status, page = window.ask("/worker/edge-1@fleet", password=window.password)
    assert status == 200
    assert "fleet host show edge-1" in page
    status, page = window.ask("/broker", password=window.password)
    assert (status, "fleet:h:edge-1:q" in page) == (200, True)
    assert window.ask("/worker/nobody@fleet", password=window.password)[0] == 404


def test_nothing_is_shown_without_the_password_and_nothing_can_be_changed_with_it(
    window: Window, any_broker: Broker
) -> None:
    heard(window, any_broker.url, "edge-1")
    for path in READS:
        assert (path, window.ask(path)[0]) == (path, 401)
        assert (path, window.ask(path, password="wrong")[0]) == (path, 401)
        assert (path, window.ask(path, password=window.password)[0]) == (path, 200)
    with any_broker.connect() as client:
        before = sorted(client.keys("*"))
        for path in CHANGES:
            assert (path, window.ask(path, data=b"{}")[0]) == (path, 401)
            status, text = window.ask(path, data=b'{"args": []}', password=window.password)
            assert (path, status) == (path, 403)
            assert "only watches" in text
        assert sorted(client.keys("*")) == before
    assert window.ask("/healthcheck") == (200, "OK")


def test_its_password_is_kept_for_its_owner_and_not_written_into_a_log(window: Window, any_broker: Broker) -> None:
    assert f"Password: in {window.state / 'flower.password'}\n" in window.log.read_text()
    assert window.password not in window.log.read_text()
    assert (window.state / "flower.password").stat().st_mode & 0o777 == 0o600
    assert window.stop() == 0
    again = Window(any_broker.url, window.state)
    assert again.password == window.password
    assert window.password not in again.log.read_text()
    again.stop()
    (window.state / "flower.password").chmod(0o644)
    refused = forks.run(["flower"], env=window.environment)
    assert refused.returncode == 4
    assert "is open to others; chmod 600" in refused.stderr


def test_it_comes_back_after_an_outage_and_says_so_once(window: Window, any_broker: Broker) -> None:
    heard(window, any_broker.url, "edge-1")
    any_broker.stop(kill=True)
    window.wait_for("broker.lost")
    any_broker.start()
    heard(window, any_broker.url, "edge-2")
    assert window.log.read_text().count("broker.lost") == 1
    assert window.log.read_text().count("broker.regained") == 1
    assert "Traceback" not in window.log.read_text()


def test_a_port_in_use_and_a_wrong_password_are_one_line(window: Window, any_broker: Broker) -> None:
    words = ["flower", "--port", str(window.port)]
    refused = forks.run(words, env=window.environment)
    assert refused.returncode == 1
    assert f"Flower cannot listen on 127.0.0.1 port {window.port} (Address already in use)" in refused.stderr
    with any_broker.connect() as client:
        client.config_set("requirepass", "hush")
        try:
            refused = forks.run(words, env=window.environment)
        finally:
            client.config_set("requirepass", "")
    assert refused.returncode == 5
    assert "Traceback" not in refused.stderr


def test_it_is_small(broker: Broker, tmp_path: Path) -> None:
    with forks.real_starts():  # a fork's memory is its server's as well
        window = Window(broker.url, tmp_path / "state")
    try:
        # 90 MB is the bound of a host's worker; Flower stands on the same libraries.
        assert psutil.Process(window.process.pid).memory_info().rss < 110 * 2**20
    finally:
        window.end()
