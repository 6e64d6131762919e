"""The version of Fleet that runs here."""

from importlib import metadata

#: Name of the distribution; `fleet` is somebody else's on PyPI.
DISTRIBUTION = "dockfleet"


def current() -> str:
    """Return the installed version; "0+uninstalled" when Fleet runs from a checkout that is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+uninstalled"
