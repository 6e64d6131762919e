"""Contracts of a package that is installed on hosts, for tests: each does one thing that a supervisor has to bear."""

from datetime import timedelta

from fleet.contracts import Contract, Reply, Request, Restart, Risk


class Act(Request):
    """What to do, on which file."""

    log: str
    seconds: float = 0.0
    count: int = 0


class Done(Reply):
    said: str


def _contract(
    name: str, *, idempotent: bool = False, on_restart: Restart | None = None, limit: timedelta = timedelta(minutes=5)
) -> Contract[Act, Done]:
    return Contract(
        name=f"offered.{name}",
        summary=f"Test contract: {name}.",
        request=Act,
        reply=Done,
        risk=Risk.EXECUTES,
        idempotent=idempotent,
        on_restart=on_restart,
        limit=limit,
        perform=f"offered_functions:{name}",
    )


ALL = (
    _contract("effect"),
    _contract("again", idempotent=True),
    _contract("returned", on_restart=Restart.HAND_BACK),
    _contract("held"),
    _contract("held_again", idempotent=True),
    _contract("fail"),
    _contract("fail_twice"),
    _contract("exit"),
    _contract("wrong_reply"),
    _contract("large_reply"),
    _contract("odd_error"),
    _contract("eat_memory"),
    _contract("shout"),
    _contract("stubborn"),
    _contract("tidy"),
    _contract("fork_away"),
    _contract("kill_supervisor"),
    _contract("kill_worker", idempotent=True),
    _contract("close_everything"),
    _contract("tell_steps"),
    _contract("show_environment"),
    _contract("orphan"),
    _contract("write_everywhere"),
    _contract("tell_two_steps"),
    _contract("tell_nonsense"),
    _contract("flee_by_forking"),
    _contract("say_when"),
)
