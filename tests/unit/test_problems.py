"""Problems: which status an error is answered with."""

import pytest

from fleet import errors
from fleet.api import problems


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("denied", 403),
        ("credential_revoked", 403),
        ("credential_expired", 403),
        ("not_in_allow_list", 400),
        ("not_waiting", 409),
        ("stale", 410),
    ],
)
def test_what_a_host_refuses_is_answered_by_its_reason(reason: str, status: int) -> None:
    answer = problems.of(errors.TaskRejected(reason, "because"))
    assert answer.status_code == status
    assert f'"code": "{reason}"'.encode() in answer.body
