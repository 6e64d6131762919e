"""Listening: an address and a port of this machine, as people write them: 127.0.0.1:8000, [::1]:8000."""

from dataclasses import dataclass

from fleet import address

#: Written instead of an address: nothing is listened on.
OFF = "off"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where to listen; port 0 is any that is free."""

    host: str
    port: int
    #: whether somebody wants that very port: another one is not what was asked for then
    insisted: bool = True

    def __str__(self) -> str:
        return write(self.host, self.port)


def parse(text: str, *, example: str, any_port: bool = False) -> Listening:
    """Read ADDRESS:PORT; raise ValueError, with what to write, for what is none."""
    host, separator, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bracketed = bare != host
    fits = bracketed == (":" in bare) and address.is_host(bare)
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else -1
    if not (separator and fits and (0 if any_port else 1) <= number <= 65535):
        raise ValueError(f"write ADDRESS:PORT, such as {example}")
    return Listening(host=bare, port=number)


def write(host: str, port: int) -> str:
    """Return an address and a port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
