"""TLS: the two kinds of connection to a broker there are, and what a failed handshake means.

redis-py, kombu and Celery are handed these classes, whatever else they are told: `VerifiedConnection` checks the
broker's certificate and its name before a byte of ours is sent, and `LoopbackConnection`, in plaintext, goes nowhere
but this machine. Left to themselves the three libraries can be talked out of it: kombu turns verification off for a
bare `rediss://`, takes `broker_use_ssl=True` for plaintext, and reads options in the URL (tests/conformance).
"""

import socket
import ssl
from functools import lru_cache
from typing import Any

import redis

from fleet.address import Address, is_loopback

#: OpenSSL's numbers (X509_V_ERR_…) of what can be wrong with a certificate, as far as each has a remedy of its own.
_EXPIRED, _NOT_YET = 10, 9
_WRONG_NAMES = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})


class Unanswered(redis.ConnectionError):
    """Somebody takes connections and answers nothing: a broker in trouble, or two that do not both speak TLS."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class Untrusted(Unanswered):
    """Whoever answers cannot show to be the broker; nothing was sent to it."""


class _Introduced(redis.Connection):
    """A connection that says what it may mean when the other side hangs up at the first word."""

    hint: str

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's
        parent: Any = super()
        try:
            parent.on_connect_check_health(check_health=check_health)
        except redis.ConnectionError as exc:
            # Its subclasses are answers, such as a wrong password.
            if type(exc) is not redis.ConnectionError or refusal(exc):
                raise
            raise Unanswered("it hangs up without an answer", self.hint) from exc


class VerifiedConnection(_Introduced, redis.SSLConnection):
    """A connection by TLS, always verified; of the TLS options only `ssl_ca_data` counts."""

    hint = "is it running? if it wants a client's certificate, set `tls-auth-clients no` there"
    #: until when the broker's certificate is good, in unix seconds; known once connected
    expires_at: float | None = None

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        try:
            wrapped = context(self.ca_data).wrap_socket(sock, server_hostname=self.host)
        except ssl.SSLCertVerificationError as exc:
            raise Untrusted(*_distrust(exc, self.host, has_ca=self.ca_data is not None)) from exc
        except (TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError) as exc:
            problem = "it does not answer" if isinstance(exc, TimeoutError) else "it hangs up"
            raise Unanswered(
                f"{problem} in the TLS handshake", "is it running, and is that its TLS port (`tls-port`)?"
            ) from exc
        except ssl.SSLError as exc:
            raise Untrusted(*_refusal(exc)) from exc
        self.expires_at = ssl.cert_time_to_seconds(str((wrapped.getpeercert() or {})["notAfter"]))
        return wrapped


class LoopbackConnection(_Introduced):
    """A connection in plaintext, which goes nowhere but this machine, whatever a name resolves to."""

    hint = "is it running, and without TLS on that port? for TLS write rediss://…"

    def _connect(self) -> socket.socket:
        parent: Any = super()
        sock: socket.socket = parent._connect()  # noqa: SLF001 - overridden here
        if not is_loopback(str(sock.getpeername()[0])):
            sock.close()
            raise Untrusted(f"{self.host} is another machine, and this is plaintext", "write rediss://… for TLS")
        return sock


@lru_cache(maxsize=16)
def context(ca: str | None) -> ssl.SSLContext:
    """Return the context that verifies by the authorities in `ca` (PEM) alone, or by the system's.

    Kept, because reading the system's takes longer than a handshake.
    """
    made = ssl.create_default_context(cadata=ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def connection_class(address: Address) -> type[redis.Connection]:
    return VerifiedConnection if address.tls else LoopbackConnection


def options(address: Address) -> dict[str, Any]:
    """Return the TLS options of an address, as redis-py, kombu and Celery take them; empty for plaintext.

    Only `ssl_ca_data` is more than what `VerifiedConnection` does anyway; the others are for whoever reads them.
    """
    if not address.tls:
        return {}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_data": address.ca}


def refusal(exc: BaseException) -> Unanswered | None:
    """Return what TLS, or its absence, has to do with an error of a connection, however deep; None for nothing."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, Unanswered):
            return cause
        if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):  # after the handshake, in TLS 1.3
            return Untrusted(*_refusal(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def _distrust(exc: ssl.SSLCertVerificationError, host: str, *, has_ca: bool) -> tuple[str, str]:
    if exc.verify_code == _EXPIRED:
        return "its certificate has expired", "give the broker a new one, or set this machine's clock right"
    if exc.verify_code == _NOT_YET:
        return "its certificate is not valid yet", "set this machine's clock right, or give the broker another one"
    if exc.verify_code in _WRONG_NAMES:
        return (
            f"its certificate is not for {host!r}",
            "write the name that the certificate is for into the broker's URL, or give the broker one for this name",
        )
    if exc.verify_code in _UNKNOWN_AUTHORITY:
        return (
            f"its certificate is of a CA that is not trusted here ({exc.verify_message})",
            "the CA that counts is FLEET_BROKER_CA, else the one of the host's token: is it the broker's? if it is, "
            "somebody else may be answering"
            if has_ca
            else "set FLEET_BROKER_CA to the certificate (PEM) of the CA that signed it; the system's CAs did not",
        )
    return f"its certificate is refused ({exc.verify_message})", "give the broker another one"


def _refusal(exc: ssl.SSLError) -> tuple[str, str]:
    reason = exc.reason or str(exc)
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
        return "it does not speak TLS on that port", "name the broker's TLS port (`tls-port`), or give it one"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            f"it refuses us in the TLS handshake ({reason.replace('_', ' ').lower()})",
            "set `tls-auth-clients no` there: Fleet shows a password, not a certificate",
        )
    return (
        f"the TLS handshake fails ({reason.replace('_', ' ').lower()})",
        "Fleet needs TLS 1.2 or newer: is the broker's too old?",
    )
