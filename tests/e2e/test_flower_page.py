"""Flower as a person sees it: behind a password, the host's worker online, its tasks with names and states."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.browser import Browser
from tests.services.docker import IMAGE
from tests.services.ports import free_ports
from tests.services.private_engine import PrivateEngine
from tests.services.up import Up, wait_for_port

pytestmark = [pytest.mark.browser, pytest.mark.docker]


@pytest.fixture
def up(tmp_path: Path, docker_engine: PrivateEngine) -> Iterator[Up]:
    broker, flower = free_ports(2)
    started = Up(
        tmp_path / "state", "--broker-port", str(broker), "--flower-port", str(flower), DOCKER_HOST=docker_engine.url
    )
    try:
        started.read_until("Ctrl-C ends all of it")
        wait_for_port(flower)
        yield started
    finally:
        started.end()


def test_flower_shows_the_worker_and_its_tasks_to_who_knows_the_password(
    up: Up, docker_engine: PrivateEngine, browser: Browser, tmp_path: Path
) -> None:
    client = docker_engine.client()
    client.containers.run(IMAGE, ["/bin/sleep", "300"], name="web", detach=True, stop_signal="SIGKILL")
    client.close()
    said = "".join(up.said)
    found = re.search(r"(http://\S+)  user (\S+), password (\S+) ", said)
    assert found is not None
    url, user, password = found.groups()

    browser.open(url)
    assert "laptop@fleet" not in browser.text

    browser.log_in(user=user, password=password)
    browser.open(f"{url}/workers")
    browser.reload_until(lambda page: "laptop@fleet" in page.text, "the host's worker")
    restart = up.fleet(
        "push-task", "fleet.containers.restart", "--host", "laptop", "--arg", "container=web", "--wait", "-o", "json"
    )
    assert restart.returncode == 0, restart.stderr
    failed = up.fleet("push-task", "fleet.containers.stop", "--host", "laptop", "--arg", "container=nope", "--wait")
    assert failed.returncode == 1

    browser.open(f"{url}/tasks")

    def listed(page: Browser) -> bool:
        return all(word in page.text for word in ("fleet.containers.restart", "SUCCESS", "FAILURE", "laptop:"))

    browser.reload_until(listed, "the tasks with names and states")
    picture = browser.screenshot(tmp_path / "flower-tasks.png")
    assert picture.stat().st_size > 10_000
    browser.open(f"{url}/workers")
    browser.reload_until(lambda page: "Online" in page.text, "the worker as one that is there")
    browser.screenshot(tmp_path / "flower-workers.png")
