"""Performers: a package's own function is imported, or it is said what is wrong with it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fleet import errors
from fleet.contracts import Contract, Performer, Reply, Request, Risk, registry
from workers.host.engine import Engine
from workers.host.tasks.registry import performers

MODULE = """
from fleet.contracts import Reply

def perform(request, run):
    return Reply()

number = 7
"""


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Mapping[str, Performer]]:
    """Offer a task by where its function lies, as an installed package does, and take up all functions."""
    (tmp_path / "fleet_test_package.py").write_text(MODULE)
    (tmp_path / "fleet_test_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)

    def take_up(perform: str) -> Mapping[str, Performer]:
        contract = Contract(
            name="shop.count",
            summary="",
            request=Request,
            reply=Reply,
            risk=Risk.READS,
            idempotent=True,
            perform=perform,
        )
        known = {**registry.known(), contract.name: contract}
        monkeypatch.setattr(registry, "known", lambda: known)
        return performers(Engine("unix:///nowhere"), lambda: pytest.fail("nobody asked for facts"))

    return take_up


def test_a_packages_function_is_imported(offered: Callable[[str], Mapping[str, Performer]]) -> None:
    assert offered("fleet_test_package:perform")["shop.count"].__module__ == "fleet_test_package"


@pytest.mark.parametrize(
    ("perform", "problem"),
    [
        ("fleet_test_absent:perform", "ModuleNotFoundError"),
        ("fleet_test_package:absent", "AttributeError"),
        ("fleet_test_package:number", "is a int, not a function"),
        ("fleet_test_broken:perform", "ZeroDivisionError"),
    ],
)
def test_a_broken_package_is_named_with_its_task(
    offered: Callable[[str], Mapping[str, Performer]], perform: str, problem: str
) -> None:
    with pytest.raises(errors.SettingsInvalid, match=rf"'shop\.count'.*{perform}.*{problem}.*mend or uninstall"):
        offered(perform)
