"""Contracts and implementations match one to one, and each means the same on both sides."""

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

from fleet import tasks
from fleet.contracts import AnyContract, Reply, Request, RunContext, registry, shell
from fleet.contracts.hosts import Facts
from tests.services.containers import container_tasks
from workers.host.containers.engine import Engine
from workers.host.files.never import Never
from workers.host.streams import StreamedRun
from workers.host.tasks.files import FileTasks, Grant, GrantedFiles
from workers.host.tasks.registry import performers

OWN = {contract.name: contract for contract in registry.OWN}
NOWHERE = Path("/nonexistent")


def no_grant(_request: object, _run: object) -> Grant:
    raise AssertionError("nothing is carried out here")


PERFORMERS = performers(
    Facts.model_construct,
    container_tasks(Engine("unix:///nonexistent.sock"), NOWHERE),
    governed=GrantedFiles(FileTasks(notes=NOWHERE, never=Never(())), no_grant).performers(),
)


#: What carries it out is no function: `workers.host.commands`.
PERFORMED_OTHERWISE = {shell.RUN.name}


def test_every_contract_has_one_implementation_and_every_implementation_a_contract() -> None:
    assert set(PERFORMERS) | PERFORMED_OTHERWISE == {
        name for name, contract in registry.known().items() if not contract.perform
    }
    assert len({id(getattr(p, "__func__", p)) for p in PERFORMERS.values()}) == len(PERFORMERS)


@pytest.mark.parametrize("contract", [OWN[name] for name in PERFORMERS], ids=PERFORMERS)
def test_an_implementation_takes_the_request_and_gives_the_reply_of_its_contract(contract: AnyContract) -> None:
    hints = get_type_hints(PERFORMERS[contract.name])
    returned = hints.pop("return")
    request, context = hints.values()
    assert request is contract.request
    assert context in ({StreamedRun} if contract.attached else {RunContext, StreamedRun})
    assert returned is contract.reply


@pytest.mark.parametrize("contract", OWN.values(), ids=OWN)
def test_a_contract_refuses_unknown_fields_and_says_what_it_is(contract: AnyContract) -> None:
    assert issubclass(contract.request, Request)
    assert contract.request.model_config["extra"] == "forbid"
    assert contract.request.model_config["frozen"]
    assert issubclass(contract.reply, Reply)
    assert contract.summary.endswith(".")
    assert contract.name.startswith(registry.RESERVED_PREFIX)


def test_every_contract_of_fleets_own_can_be_imported_from_fleet_tasks() -> None:
    offered = {value.contract.name for name, value in inspect.getmembers(tasks) if isinstance(value, tasks.Pushable)}
    assert offered == set(OWN)
    assert set(tasks.__all__) >= {name for name, v in inspect.getmembers(tasks) if isinstance(v, tasks.Pushable)}
