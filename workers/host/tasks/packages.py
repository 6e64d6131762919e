"""Functions that installed packages bring, by the `perform` of their contracts."""

from importlib import import_module

from fleet import errors
from fleet.contracts import AnyContract, Performer


def performer(contract: AnyContract) -> Performer:
    """Import a package's function from the contract's `perform`, "package.module:function".

    Raises `errors.SettingsInvalid` where it cannot be imported, or is no function.
    """
    module, _, function = contract.perform.partition(":")
    try:
        found: Performer = getattr(import_module(module), function)
    except (Exception, SystemExit) as exc:  # importing runs the package's own code, which may raise anything
        raise _broken(contract, f"cannot be imported ({type(exc).__name__}: {exc})") from exc
    if not callable(found):
        raise _broken(contract, f"is a {type(found).__name__}, not a function")
    return found


def _broken(contract: AnyContract, problem: str) -> errors.SettingsInvalid:
    return errors.SettingsInvalid(
        f"task {contract.name!r}: {contract.perform!r} {problem}",
        remedy="mend or uninstall the package that offers it",
    )
