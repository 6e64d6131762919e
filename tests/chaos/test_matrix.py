"""The fault matrix in its short form: every fault is made once in each manner, and none loses or repeats a run."""

import shutil

import pytest

from tests.chaos.fault import Fault, Scale
from tests.chaos.matrix import FAULTS
from tests.services.availability import missing
from tests.services.private_engine import PrivateEngine

#: Programs that faults are made with, by the fault's number.
_NEEDED = {
    6: ("ip", "iptables"),
    7: ("faketime",),
    8: ("mount",),
    9: ("setpriv", "pg_ctlcluster"),
    17: ("gcc", "unshare"),
}


@pytest.mark.xdist_group("chaos")  # one fault at a time
@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.number}")
def test_the_promise_holds(fault: Fault) -> None:
    if lacking := [program for program in _NEEDED.get(fault.number, ()) if not shutil.which(program)]:
        missing(f"not installed: {', '.join(lacking)}")
    if fault.number == 10 and (why := PrivateEngine.missing()):
        missing(why)
    seeds = list(range(1, fault.short_seeds + 1))
    tally = fault.fleet(seeds, Scale(short=True))
    print(f"{fault.name}, seeds {seeds}: {tally.summary()}")
    assert tally.clean, "\n".join(tally.notes)
    assert tally.acknowledged > 0
    assert tally.recovered
