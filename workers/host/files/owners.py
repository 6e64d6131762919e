"""Owners: users and groups of this host, as names and as numbers."""

import grp
import pwd

from fleet import errors


class Owners:
    """Looks names up, each once: a directory of thousands has few owners, and a look may go over the network."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def user(self, number: int) -> str:
        """Return the name of a user, or the number where there is none."""
        if number not in self._users:
            try:
                self._users[number] = pwd.getpwuid(number).pw_name
            except KeyError:
                self._users[number] = str(number)
        return self._users[number]

    def group(self, number: int) -> str:
        """Return the name of a group, or the number where there is none."""
        if number not in self._groups:
            try:
                self._groups[number] = grp.getgrgid(number).gr_name
            except KeyError:
                self._groups[number] = str(number)
        return self._groups[number]


def user_number(name: str) -> int:
    """Return the number of a user, by its name or number; raises `errors.TaskFailed` that names the field."""
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise _unknown("owner", "user", name) from None


def group_number(name: str) -> int:
    """Return the number of a group, by its name or number; raises `errors.TaskFailed` that names the field."""
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise _unknown("group", "group", name) from None


def _unknown(field: str, noun: str, name: str) -> errors.TaskFailed:
    return errors.TaskFailed(
        f"{field}: this host has no {noun} named {name!r}",
        kind="invalid_arguments",
        remedy="make it first, or give a number",
    )
