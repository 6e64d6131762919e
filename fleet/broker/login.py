"""Logins: whose user a broker URL carries.

Everybody has a user of their own at the broker: `control`, `flower`, `h-<host>`, `p-<principal>`, `join-<token>`. The
broker keeps SHA-256 hashes of the passwords, which have 256 random bits.
"""

import hashlib
import secrets
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr

from fleet import names


def host_user(host: str) -> str:
    return f"h-{names.host_id(host)}"


def principal_user(name: str) -> str:
    return f"p-{names.principal(name)}"


def joiner_user(token_id: str) -> str:
    return f"join-{token_id}"


def new_password() -> str:
    """Return a password that nobody guesses: failed logins are not limited by the broker."""
    return secrets.token_hex(32)


def hashed(password: str) -> str:
    """Return what the broker keeps of a password (`ACL SETUSER … #<hash>`)."""
    return hashlib.sha256(password.encode()).hexdigest()


def at(url: str, user: str, password: str) -> SecretStr:
    """Return the URL with this user and password instead of its own."""
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return SecretStr(urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{where}")))


def without(url: str) -> str:
    """Return the URL without user and password: the broker's address."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
