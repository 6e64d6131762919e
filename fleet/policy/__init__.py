"""Policy: what may be done on a host, by whom. `decide` says it; everything else here is what it goes by.

Two documents speak. The fleet's policy lists commands and files and says what each level may do (`fleets`); the file of
the host's owner says what containers may have, and can only narrow the rest (`host`). What no entry lists is denied.
"""

from fleet.policy.containers import BindGrant, ContainerPolicy
from fleet.policy.entries import Command, FileGrant, paths_in
from fleet.policy.fleets import FleetPolicy, parse
from fleet.policy.host import USUAL_PATH, HostPolicy, load, of_host
from fleet.policy.judging import Verdict, decide
from fleet.policy.levels import of_task
from fleet.policy.places import really
from fleet.policy.question import Question
from fleet.policy.rules import Rule
from fleet.policy.statement import Stated, read, state

__all__ = [
    "USUAL_PATH",
    "BindGrant",
    "Command",
    "ContainerPolicy",
    "FileGrant",
    "FleetPolicy",
    "HostPolicy",
    "Question",
    "Rule",
    "Stated",
    "Verdict",
    "decide",
    "load",
    "of_host",
    "of_task",
    "parse",
    "paths_in",
    "read",
    "really",
    "state",
]
