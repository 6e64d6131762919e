"""Free TCP ports for servers of tests.

They lie below those that the kernel gives to outgoing connections: nobody's client comes to sit on the port of a server
that a test has stopped and will start again. A port is free when it is returned, and nothing keeps it so.
"""

import random
import socket

_PORTS = range(10_000, 32_768)
#: Not `random` itself: pytest-randomly seeds it alike in all processes of one run, and they would take the same ports.
_random = random.SystemRandom()


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return that many ports of 127.0.0.1 on which nobody listens, all of them different."""
    found: set[int] = set()
    while len(found) < count:
        with socket.socket() as probe:
            port = _random.choice(_PORTS)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.add(port)
    return list(found)
