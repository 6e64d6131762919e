"""Completing: what a shell offers for an argument that only the fleet knows, the names of its hosts.

Somebody waits for a key press, and may be in the middle of a mistake: whatever goes wrong (no broker, no credential, a
wrong setting) offers nothing and says nothing. Names are offered as the registry has them; commands check them.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from click import Context, Parameter

if TYPE_CHECKING:
    from fleet.settings import Settings

#: Beyond that nobody waits for a list of names.
_ANSWERS_WITHIN = timedelta(seconds=1)
#: What the command line calls the host that a machine is, beside those of the fleet.
_OWN = "--host-id"


def hosts(_ctx: Context, param: Parameter, incomplete: str) -> list[str]:
    """Return the hosts whose names begin so: those with a credential here for `--host-id`, else those of the fleet."""
    from fleet import configuration, errors, names

    try:
        found = configuration.load()
        known = _here(found) if _OWN in param.opts else _of_fleet(found)
    except (errors.FleetError, OSError):
        return []
    return sorted(name for name in known if name.startswith(incomplete) and names.HOST_ID.fullmatch(name))


def _here(found: "Settings") -> list[str]:
    return [path.parent.name for path in found.state_dir.glob("hosts/*/credential.json")]


def _of_fleet(found: "Settings") -> list[str]:
    from fleet import credentials, names
    from fleet.broker import connection

    name = found.resolved_principal
    address = credentials.broker(credentials.load_principal(found.principal_path(name), name=name), found)
    client = connection.connect(address, name="completion", timeout=_ANSWERS_WITHIN)
    try:
        with connection.translated(address):
            entries: Any = client.hkeys(names.HOSTS)
            return list(entries)
    finally:
        client.close()
