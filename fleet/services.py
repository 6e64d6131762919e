"""Services: the folder that holds `workers/`, `beat/` and `config/`, and how to import from it.

Those three names are generic, and other distributions use them too. In the wheel they lie in `fleet/_services`, where
nobody's `import workers` finds them; in a checkout (or an editable install) beside `fleet/`. Processes that need them
put that folder first on the path; programs that merely import Fleet never do.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import fleet
from fleet import errors

#: The packages of the services folder.
PACKAGES = ("workers", "beat")


def folder() -> Path:
    """Return the folder that holds `workers/`, `beat/` and `config/`.

    Raises `errors.LocalFault` where an installation is incomplete.
    """
    package = Path(fleet.__file__).parent
    for candidate in (package / "_services", package.parent):
        if (candidate / "config").is_dir() and all((candidate / name / "__init__.py").is_file() for name in PACKAGES):
            return candidate
    raise errors.LocalFault(
        f"Fleet's installation at {package} has no workers, beat and config", remedy="install `dockfleet` again"
    )


def is_checkout() -> bool:
    """Say whether Fleet runs from its source tree (or an editable install), not from a wheel."""
    return folder() == Path(fleet.__file__).parent.parent


def load(name: str) -> ModuleType:
    """Import a module of the services folder, such as "workers.host.app", whoever else has a package of that name.

    Raises `errors.LocalFault` where a foreign `workers` or `beat` is imported already: one process cannot have both.
    """
    home = folder()
    for package in PACKAGES:
        _refuse_foreign(package, home)
    entry = str(home)
    if sys.path[:1] != [entry]:
        sys.path[:] = [entry, *(other for other in sys.path if other != entry)]
    module = import_module(name)
    for package in PACKAGES:
        _refuse_foreign(package, home)
    return module


def config_file(name: str) -> Path:
    """Return the path of a file in `config/`; raise `errors.LocalFault` where it is missing."""
    path = folder() / "config" / name
    if not path.is_file():
        raise errors.LocalFault(f"Fleet's installation has no config/{name}", remedy="install `dockfleet` again")
    return path


def _refuse_foreign(package: str, home: Path) -> None:
    module = sys.modules.get(package)
    if module is None:
        return
    found = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
    if not Path(found).is_relative_to(home / package):
        raise errors.LocalFault(
            f"another package named {package!r} is imported here already (from {found or 'nowhere known'})",
            remedy="run Fleet's processes by the `fleet` command, not inside another program",
        )
