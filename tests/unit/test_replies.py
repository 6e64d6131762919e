"""Replies: what is no reply of its contract does not travel."""

import pytest

from fleet import errors
from fleet.contracts import Contract, Reply, Request, Risk
from workers.host.replies import checked_reply


class Measured(Reply):
    load: float


CONTRACT = Contract(
    name="shop.load", summary="", request=Request, reply=Measured, risk=Risk.READS, idempotent=True, perform="x:y"
)


def test_a_reply_becomes_json_values() -> None:
    assert checked_reply(CONTRACT, Measured(load=0.5)) == {"load": 0.5}


@pytest.mark.parametrize("load", [float("nan"), float("inf")])
def test_a_number_that_json_has_no_word_for_is_a_wrong_reply(load: float) -> None:
    with pytest.raises(errors.TaskFailed, match=r"shop\.load is no JSON") as caught:
        checked_reply(CONTRACT, Measured(load=load))
    assert caught.value.kind == "wrong_reply"
