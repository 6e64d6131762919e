"""Performers: a package's own function is imported, or it is said what is wrong with it."""

from pathlib import Path

import pytest

from fleet import errors
from fleet.contracts import AnyContract, Contract, Reply, Request, Risk
from workers.host.tasks.packages import performer

MODULE = """
from fleet.contracts import Reply

def perform(request, run):
    return Reply()

number = 7
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet_test_package.py").write_text(MODULE)
    (tmp_path / "fleet_test_broken.py").write_text("1 / 0")
    (tmp_path / "fleet_test_program.py").write_text("import sys; sys.exit('usage: …')")
    monkeypatch.syspath_prepend(tmp_path)


def contract(perform: str) -> AnyContract:
    return Contract(
        name="shop.count", summary="", request=Request, reply=Reply, risk=Risk.READS, idempotent=True, perform=perform
    )


def test_a_packages_function_is_imported() -> None:
    assert performer(contract("fleet_test_package:perform")).__module__ == "fleet_test_package"


@pytest.mark.parametrize(
    ("perform", "problem"),
    [
        ("fleet_test_absent:perform", "ModuleNotFoundError"),
        ("fleet_test_package:absent", "AttributeError"),
        ("fleet_test_package:number", "is a int, not a function"),
        ("fleet_test_broken:perform", "ZeroDivisionError"),
        ("fleet_test_program:perform", "SystemExit"),
    ],
)
def test_a_broken_package_is_named_with_its_task(perform: str, problem: str) -> None:
    with pytest.raises(errors.SettingsInvalid, match=rf"'shop\.count'.*{perform}.*{problem}.*mend or uninstall"):
        performer(contract(perform))
