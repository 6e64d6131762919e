"""Ports: whether one is free, said before a child fails for it."""

import socket

from fleet import errors


def require_free(port: int, *, address: str, purpose: str, remedy: str) -> None:
    """Raise `errors.LocalFault` where something listens on the port already, or where we may not."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise errors.LocalFault(f"{address!r} is no address of this machine ({exc.strerror})", remedy=remedy) from exc
    family, kind, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a recent end is no obstacle
        try:
            probe.bind(where)
            probe.listen(1)
        except PermissionError as exc:
            raise errors.LocalFault(f"port {port} ({purpose}): this user may not listen there", remedy=remedy) from exc
        except OSError as exc:
            raise errors.LocalFault(
                f"port {port} ({purpose}) on {address} cannot be used ({exc.strerror})", remedy=remedy
            ) from exc
