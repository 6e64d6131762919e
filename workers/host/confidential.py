"""Confidential: what this host knows, and what the output of no command may show."""

from fleet.settings import Settings
from workers.host.containers.keeping import SecretFiles
from workers.host.own import Own


def values(own: Own, files: SecretFiles, settings: Settings) -> set[bytes]:
    """Return the host's own keys and passwords, the secrets of its containers, and those of Fleet's settings."""
    return {*own.secrets(), *files.values(), *settings.secret_values()}
