"""Answers: what a host says of one approver's word, while others answer as well."""

from typing import Any

import pytest

from fleet import answers, errors
from fleet.answers import Says
from fleet.parked import Parked

ASKED = Parked(
    run_id="h1:0198c0de-0000-7000-8000-000000000000",
    host="h1",
    principal="stu",
    level="student",
    task="fleet.shell.run",
    arguments={},
    description="",
    limit_seconds=None,
    max_retries=0,
    not_before=0.0,
    digest="d",
)


@pytest.mark.parametrize(
    ("event", "data", "concerned"),
    [
        ("run.approved", {"by": "carl"}, True),
        ("run.rejected", {"by": "carl"}, True),
        ("run.expired", {}, True),
        ("run.cancelled", {}, True),
        ("run.unknown", {}, True),
        ("approval.refused", {"by": "bob"}, True),
        ("approval.refused", {"by": "carl"}, False),
        ("approval.refused", {}, False),
        ("run.queued", {}, False),
        ("run.started", {}, False),
    ],
)
def test_an_approver_hears_of_the_run_and_of_their_own_answer(
    event: str, data: dict[str, Any], *, concerned: bool
) -> None:
    assert answers.concerns(event, data, "bob") is concerned


@pytest.mark.parametrize(("says", "event"), [("approve", "run.approved"), ("deny", "run.rejected")])
def test_somebody_elses_word_of_the_same_meaning_is_as_good(says: Says, event: str) -> None:
    answers.require_taken(event, {"by": "carl"}, ASKED, says)


@pytest.mark.parametrize(
    ("says", "event", "data", "error"),
    [
        ("approve", "run.rejected", {"by": "carl", "reason": "denied"}, errors.Refused),
        ("deny", "run.rejected", {"reason": "not_in_allow_list"}, errors.Refused),
        ("deny", "run.approved", {"by": "carl"}, errors.Refused),
        ("approve", "approval.refused", {"by": "bob", "reason": "not_permitted"}, errors.TaskRejected),
        ("deny", "approval.refused", {"by": "bob", "reason": "not_waiting"}, errors.TaskRejected),
        ("approve", "run.expired", {}, errors.TaskExpired),
        ("deny", "run.cancelled", {}, errors.Refused),
        ("approve", "run.unknown", {}, errors.Refused),
    ],
)
def test_what_is_no_such_answer_is_an_error(
    says: Says, event: str, data: dict[str, Any], error: type[errors.FleetError]
) -> None:
    with pytest.raises(error):
        answers.require_taken(event, data, ASKED, says)
