"""The pictures of the README, taken from a real run: `make pictures`.

`fleet up` on a private Engine with a few containers; the terminal as an SVG of what a terminal of 100 columns shows,
Flower as a screenshot of its task list.
"""

import fcntl
import io
import os
import re
import struct
import subprocess
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.services import browser
from tests.services.docker import IMAGE, busybox_root
from tests.services.ports import free_ports
from tests.services.private_engine import PrivateEngine
from tests.services.up import Up, wait_for_port
from tests.services.waiting import until

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLUMNS = 104


def on_terminal(up: Up, *words: str) -> str:
    """Run a `fleet` command on a pseudo-terminal and return what it shows, colors included."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = {**up.environment, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen([*up.program, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux says EIO where the other end is closed
        pass
    process.wait()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def draw_terminal(up: Up, commands: list[list[str]]) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for index, words in enumerate(commands):
        console.print(("\n" if index else "") + f"[bold]$ fleet {' '.join(words)}[/bold]")
        console.print(Text.from_ansi(on_terminal(up, *words).rstrip()))
    # Without the fonts that Rich would fetch from elsewhere: whoever looks has a monospaced one.
    drawn = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="fleet"), flags=re.DOTALL)
    (IMAGES / "terminal.svg").write_text(drawn, encoding="utf-8")


def draw_flower(up: Up) -> None:
    found = re.search(r"(http://\S+)  user (\S+), password (\S+) ", "".join(up.said))
    assert found is not None
    url, user, password = found.groups()
    with browser.started(width=1400, height=620) as page:
        page.log_in(user=user, password=password)
        page.open(f"{url}/tasks")
        page.reload_until(lambda seen: seen.text.count("SUCCESS") >= 4, "the tasks")
        page.screenshot(IMAGES / "flower.png")


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        engine = PrivateEngine(Path(directory) / "e")
        engine.start()
        client = engine.client()
        client.api.import_image_from_data(busybox_root(), repository=IMAGE.partition(":")[0], tag="latest")
        options = {"image": IMAGE, "command": ["/bin/sleep", "300"], "detach": True, "stop_signal": "SIGKILL"}
        client.containers.run(name="web", ports={"80/tcp": 8080}, labels={"app": "shop"}, **options)
        client.containers.run(name="cache", **options)
        client.containers.create(IMAGE, ["/bin/true"], name="report")
        broker, flower = free_ports(2)
        up = Up(
            Path(directory) / "state",
            *("--broker-port", str(broker), "--flower-port", str(flower)),
            DOCKER_HOST=engine.url,
        )
        try:
            up.read_until("Ctrl-C ends all of it")
            wait_for_port(flower)
            until(lambda: "laptop" in up.fleet("host", "list", "-o", "id").stdout, "the host")
            up.fleet("host", "label", "laptop", "env=lab")
            restart = ["push-task", "fleet.containers.restart", "--host", "laptop", "--arg", "container=web"]
            for words in (
                ["push-task", "fleet.host.ping", "--host", "laptop", "--wait"],
                ["push-task", "fleet.containers.list", "--host", "laptop", "--wait"],
                ["push-task", "fleet.containers.stop", "--host", "laptop", "--arg", "container=cache", "--wait"],
                [*restart, "--wait"],
            ):
                assert up.fleet(*words).returncode == 0
            draw_flower(up)
            draw_terminal(up, [["host", "list"], ["ps"], ["task", "list"]])
        finally:
            up.end()
            client.close()
            engine.stop()


if __name__ == "__main__":
    main()
