"""Commands on a host of a test's own: a pipeline that runs them, by a governor that grants what a test says."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.contracts.envelope import Limits
from fleet.contracts.reports import Kind
from fleet.contracts.shell import RUN, CommandResult, RunCommand
from fleet.contracts.verdicts import RunAs, SessionEnded
from tests.services.pipelines import Part
from tests.services.sessions import Session
from tests.services.waiting import LIMITS, until
from workers.host.commands import Commands


@dataclass
class Entry:
    """An entry of a policy, as `workers.host.commands.Granted` has it."""

    program: str
    cwd: Sequence[str] = ()
    limit_seconds: float = 300.0
    #: index of an argument → root
    paths: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Judged:
    command: Entry | None


class Grants:
    """A governor that grants every program by its path, unless a test says otherwise."""

    def __init__(self, decide: Callable[[RunCommand], Entry | None] | None = None) -> None:
        self.decide = decide or (lambda request: Entry(request.argv[0]))
        self.asked: list[tuple[str, ...]] = []

    def grant(self, _claim: Any, _contract: Any, request: RunCommand) -> Judged:
        self.asked.append(request.argv)
        return Judged(self.decide(request))

    def require_real(self, *_: Any, **__: Any) -> None:
        """Have no objection to where a path leads."""

    def recorded(self, *, program: str, argv: Sequence[str], cwd: str, env: Iterable[str]) -> RunAs:
        return RunAs(program=program, argv=tuple(map(self.mask, argv)), cwd=self.mask(cwd), env=tuple(sorted(env)))

    def mask(self, text: str) -> str:
        return text.replace("hunter2", "***")


def paths_in(entry: Entry, _argv: tuple[str, ...]) -> Iterable[tuple[int, str]]:
    return entry.paths.items()


class Shell(Part):
    """A pipeline whose task is `fleet.shell.run`."""

    def __init__(self, session: Session, client: Any, directory: Path, **wishes: Any) -> None:
        super().__init__(session, client, directory, contract=RUN)
        self.grants = Grants(wishes.pop("decide", None))
        self.secrets: list[bytes] = []
        self.pipeline._commands = Commands(
            host="h1",
            governor=self.grants,
            paths_in=paths_in,
            secrets=lambda: self.secrets,
            children=self.children,
            endings=session.endings,
            settling=self.settling,
            running=self.running,
        )

    @contextmanager
    def at_work(self) -> Iterator["Shell"]:
        with super().at_work():
            try:
                yield self
            finally:
                for run_id in self.running.ids():
                    self.children.end(run_id, why="stopped")
                self.running.wait_empty(30)
                self.children.close()

    def begin(self, *argv: str, limit: float | None = None, **arguments: Any) -> str:
        """Take a command and have it begin; return its run."""
        wishes: dict[str, Any] = {"limits": Limits(hard_seconds=limit)} if limit else {}
        wishes |= {name: arguments.pop(name) for name in ("max_retries",) if name in arguments}
        run_id = self.deliver(arguments={"argv": list(argv), **arguments}, **wishes)
        self.pipeline.carry_out(RUN, run_id)
        return run_id

    def until_ended(self, run_id: str, *, timeout: float = 30) -> Kind:
        """Wait until a run has ended; return the kind of its last report."""
        until(lambda: run_id not in self.running.ids(), f"{run_id} has ended", timeout=timeout)
        return self.session.kinds(run_id)[-1]

    def run(self, *argv: str, **arguments: Any) -> CommandResult:
        """Run a command that ends by itself; return its result."""
        run_id = self.begin(*argv, **arguments)
        assert self.until_ended(run_id) is Kind.RUN_SUCCEEDED, self.session.reports(run_id)[-1].data
        return CommandResult.model_validate(self.session.reports(run_id)[-1].data["reply"])

    def limited(self, *argv: str) -> SessionEnded:
        """Run a command into its time limit, one that lets it say something first; return the session's record."""
        for limit in LIMITS:
            run_id = self.begin(*argv, limit=limit)
            assert self.failure(run_id) == "time_limit"
            if (record := self.record(run_id)).stdout:
                return record
        raise AssertionError(f"it says nothing within {limit:g} s")

    def failure(self, run_id: str, *, timeout: float = 30) -> str:
        """Wait for the failure of a run; return its kind."""
        assert self.until_ended(run_id, timeout=timeout) is Kind.RUN_FAILED
        return str(self.session.reports(run_id)[-1].data["kind"])

    def records(self, run_id: str) -> list[SessionEnded]:
        """Return the records of a run's sessions; each is there once, right before the report of the end."""
        told = self.session.reports(run_id)
        found = [index for index, report in enumerate(told) if report.kind is Kind.SESSION_ENDED]
        assert all(told[index + 1].kind is not Kind.SESSION_ENDED for index in found)
        return [SessionEnded.model_validate(told[index].data) for index in found]

    def record(self, run_id: str) -> SessionEnded:
        [found] = self.records(run_id)
        return found
