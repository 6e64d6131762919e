"""Networks: each host in a network namespace of its own, and what can be wrong between it and the broker."""

import itertools
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: A range for tests (RFC 2544), so that nobody else's addresses are touched; several may be at it on one machine.
_NUMBER = os.getpid() % 251
_BRIDGE = f"fleetchaos{_NUMBER}"
ADDRESS = f"198.18.{_NUMBER}.1"
#: Ways in which a link can break.
CUTS = ("drop", "reset", "half-open to the broker", "half-open to the host")

_numbers = itertools.count(2)
_lock = threading.Lock()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def bridge() -> Iterator[None]:
    """Make the network that all namespaces share with the broker."""
    with suppress(subprocess.CalledProcessError):
        _ip("link", "delete", _BRIDGE)
    _ip("link", "add", _BRIDGE, "type", "bridge")
    try:
        _ip("address", "add", f"{ADDRESS}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        yield
    finally:
        _ip("link", "delete", _BRIDGE)


class Namespace:
    """A network namespace with one link to the bridge."""

    def __init__(self) -> None:
        with _lock:
            number = next(_numbers)
        self.name = f"fleetchaos{_NUMBER}-{number}"
        self.address = f"198.18.{_NUMBER}.{number}"
        inside, outside = f"fci{_NUMBER}-{number}", f"fco{_NUMBER}-{number}"
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self.name)
        _ip("netns", "add", self.name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
        _ip("link", "set", outside, "master", _BRIDGE, "up")
        for words in (
            ("address", "add", f"{self.address}/24", "dev", inside),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *words)
        self.prefix = ["ip", "netns", "exec", self.name]

    @contextmanager
    def cut(self, how: str) -> Iterator[None]:
        """Break the link, as one of `CUTS`, for as long as the block lasts."""
        drop, reset = ["-j", "DROP"], ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
        rules = {
            "drop": [["INPUT", *drop], ["OUTPUT", *drop]],
            "reset": [["INPUT", *reset], ["OUTPUT", *reset]],
            "half-open to the broker": [["OUTPUT", *drop]],
            "half-open to the host": [["INPUT", *drop]],
        }[how]
        for chain, *rule in rules:
            self._iptables("-I", chain, *rule)
        try:
            yield
        finally:
            for chain, *rule in rules:
                self._iptables("-D", chain, *rule)

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self.name)

    def _iptables(self, *words: str) -> None:
        subprocess.run([*self.prefix, "iptables", "--wait", *words], check=True, capture_output=True)
