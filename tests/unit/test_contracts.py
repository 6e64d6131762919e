"""Contracts: arguments are checked by name, and packages can add contracts but not take Fleet's names."""

from importlib.metadata import EntryPoint

import pytest

from fleet import errors
from fleet.contracts import Contract, Reply, Request, Risk, containers, registry


class _Nothing(Request):
    pass


def _contract(name: str, perform: str = "somewhere:something") -> Contract[_Nothing, Reply]:
    return Contract(
        name=name, summary="x", request=_Nothing, reply=Reply, risk=Risk.READS, idempotent=True, perform=perform
    )


good = _contract("example.good")
several = (_contract("example.one"), _contract("example.two"))
reserved = _contract("fleet.host.evil")
helpless = _contract("example.helpless", perform="")
nonsense = ("no contract",)


def _offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    entries = [EntryPoint(n, f"{__name__}:{n}", registry.ENTRY_POINT_GROUP) for n in names]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    registry.known.cache_clear()


@pytest.fixture(autouse=True)
def _forget_contracts() -> object:
    yield
    registry.known.cache_clear()


def test_packages_offer_one_contract_or_several(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, "good", "several")
    assert {"example.good", "example.one", "example.two", "fleet.host.ping"} <= set(registry.known())


@pytest.mark.parametrize(
    ("offered", "problem"), [("reserved", "reserved for Fleet"), ("helpless", "perform="), ("nonsense", "no fleet")]
)
def test_a_package_that_offers_something_else_is_named(
    monkeypatch: pytest.MonkeyPatch, offered: str, problem: str
) -> None:
    _offer(monkeypatch, offered)
    with pytest.raises(errors.SettingsInvalid, match=problem):
        registry.known()


def test_two_packages_cannot_offer_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, "good", "good")
    with pytest.raises(errors.SettingsInvalid, match="another package"):
        registry.known()


def test_every_wrong_argument_is_named_with_what_the_contract_takes() -> None:
    with pytest.raises(errors.InvalidArguments) as caught:
        containers.STOP.parse({"container": "a b", "timeout_seconds": 301, "force": True})
    assert set(caught.value.fields) == {"container", "timeout_seconds", "force"}
    assert "container: str, timeout_seconds: int = 10" in str(caught.value)


def test_an_unknown_task_gets_the_nearest_name() -> None:
    with pytest.raises(errors.UnknownTask, match=r"did you mean 'fleet\.containers\.restart'"):
        registry.get("fleet.container.restart")
