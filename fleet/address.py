"""Addresses: where a broker is, and who may vouch for it.

Everything that connects to a broker is given an `Address`. There is none that is plaintext to another machine, and
none that says that certificates are not to be checked. The URL is taken apart here, once; redis-py, kombu and Celery
each read URLs in a way of their own, options in the query included.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from fleet import authority, errors, redaction

DEFAULT_PORT = 6379
#: How a URL is written, for messages.
FORM = "rediss://USER:PASSWORD@HOST:PORT/0"
#: What a host name is made of, at most 253 characters (RFC 1123, 2.1); underscores, because people use them.
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a broker is. Its text, and its repr, show no password."""

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    tls: bool
    #: PEM certificates of the only authorities that count; None: those of the system
    ca: str | None = field(repr=False)

    def __post_init__(self) -> None:
        if not self.tls and not is_loopback(self.host):
            raise ValueError(f"plaintext to {self.host}")

    @property
    def url(self) -> str:
        """The URL with the password, percent-encoded so that every library reads the same in it."""
        user = quote(self.username or "", safe="")
        login = f"{user}:{quote(self.password or '', safe='')}@" if self.username or self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{login}{host}:{self.port}/0"

    def __str__(self) -> str:
        return redaction.url(self.url)


def parse(url: str, *, ca: str | None = None, field: str = "broker_url") -> Address:
    """Read a broker's URL; `ca` are PEM certificates, which count for TLS only.

    Raises `errors.InvalidValue` for `field`: no such URL, plaintext to another machine, a query or a fragment.
    """
    try:
        return _parse(url, ca)
    except _Unfit as exc:
        raise errors.InvalidValue(
            field=field, value=redaction.url(url), problem=exc.problem, remedy=exc.remedy
        ) from exc


def is_host(text: str) -> bool:
    """Say whether that is a host name or an IP address, one without a zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST.fullmatch(text) is not None
    return "%" not in text


def is_loopback(host: str) -> bool:
    """Say whether that host name or address can only be this machine. Nothing is resolved."""
    if host.lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(found in network for network in _LOOPBACK)


class _Unfit(ValueError):
    def __init__(self, problem: str, remedy: str = f"write {FORM}") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def _parse(url: str, ca: str | None) -> Address:
    if not url.isprintable() or " " in url:  # `urlsplit` drops some of these without a word
        raise _Unfit("has spaces or control characters in it")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in {"redis", "rediss"}:
        raise _Unfit("is not a broker URL, which begins with rediss:// (or redis://, on this machine)")
    _refuse_extras(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:  # whose text could quote the password
        raise _Unfit("is no URL", f"write {FORM}; a / in the password is written %2F, an @ %40") from exc
    if not is_host(host):
        raise _Unfit("names no host" if not host else "has no usable host name")
    if port == 0:
        raise _Unfit("has a port that cannot be, 0")
    if parts.path not in {"", "/", "/0"}:
        # users are the whole server's: two fleets in two of its databases would be one another's
        raise _Unfit("names a database that is not 0", f"write {FORM}; a second fleet needs a broker of its own")
    tls = scheme == "rediss"
    if not tls and not is_loopback(host):
        raise _Unfit(
            "would send everything in plaintext to another machine",
            "write rediss://…, to a port where the broker has TLS; FLEET_BROKER_CA names its CA, if that is your own",
        )
    try:
        ca = authority.checked(ca) if tls and ca is not None else None
    except ValueError as exc:
        raise _Unfit(f"comes with a CA that {exc}", "give the certificate of the broker's CA (PEM)") from exc
    return Address(
        host=host,
        port=port or DEFAULT_PORT,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
        ca=ca,
    )


def _refuse_extras(url: str) -> None:
    """Refuse a query and a fragment: a library would take options from them, such as `ssl_cert_reqs=none`."""
    before, _, _ = url.partition("#")
    _, mark, query = before.partition("?")
    if mark:
        named = ", ".join(name for name, _ in parse_qsl(query)) if "@" not in query else ""
        raise _Unfit(
            f"has options after the ? ({named})" if named else "has a query, from the ? on",
            "leave it out: nothing can be set there, and certificates are always checked; "
            "a ? in the password is written %3F",
        )
    if before != url:
        raise _Unfit("has a fragment, from the # on", "leave it out; a # in the password is written %23")
