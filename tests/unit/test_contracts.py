"""Contracts: arguments are checked by name, and packages can add contracts but not take Fleet's names."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from fleet import errors
from fleet.contracts import Contract, Reply, Request, Risk, containers, files, registry, shell


class _Nothing(Request):
    pass


def _contract(name: str, perform: str = "somewhere:something", **more: Any) -> Contract[_Nothing, Reply]:
    return Contract(
        name=name, summary="x", request=_Nothing, reply=Reply, risk=Risk.READS, idempotent=True, perform=perform, **more
    )


good = _contract("example.good")
several = (_contract("example.one"), _contract("example.two"))
reserved = _contract("fleet.host.evil")
helpless = _contract("example.helpless", perform="")
nonsense = ("no contract",)
verbose = _contract("example.verbose", largest_reply=256 * 1024 + 1)


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
    ("offered", "problem"),
    [
        ("reserved", "reserved for Fleet"),
        ("helpless", "perform="),
        ("nonsense", "no fleet"),
        ("verbose", "replies of more than 262,144 bytes"),
    ],
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


@pytest.mark.parametrize(
    ("contract", "signature"),
    [
        (shell.RUN, "argv: tuple[str, ...], cwd: str | None = None, env: dict[str, str] = {}"),
        (containers.INSPECT, "container: str"),
    ],
)
def test_what_a_contract_takes_is_said_without_the_words_of_the_library(contract: Any, signature: str) -> None:
    assert contract.signature() == signature
    assert "Annotated" not in "".join(each.signature() for each in registry.known().values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": "4755"}, "mode: write it in octal, such as 0644; setuid"),
        ({"mode": "999"}, "mode: write it in octal"),
        ({"path": "srv/app"}, "path: write an absolute path"),
    ],
)
def test_a_file_that_is_asked_for_wrongly_is_answered_with_how_to_write_it(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(errors.InvalidArguments, match=said):
        files.PUT.parse({"path": "/srv/app", "content": "", **wrong})
