"""Commands: how `fleet.shell.run` is carried out on this host, from a claimed run to its record.

    judge again → follow the links of its arguments → judge where they lead → find the program → run it → settle

The governor judges once more right before: a policy may have changed, or a principal been put out, while the run
waited. What then runs is the program that was looked at, with the arguments that were judged.

Arguments that are granted as paths are followed first, and where they lead is judged as well: an entry for a directory
below is not passed by a link into it. The program gets where they lead, and opens them itself: who may write below the
granted directory could put a link there in between. A grant is as safe as its directory is.

Commands run beside the pool, sixty-four at once, so that they hold up nothing else; then the pool's own threads carry
them out, and what comes after waits in the queue.
"""

import base64
import os
import pwd
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from fleet import canonical, errors, logs
from fleet.contracts import AnyContract
from fleet.contracts.shell import DEFAULT_LIMIT, RUN, RunCommand
from fleet.contracts.verdicts import RunAs
from workers.host import outcomes, programs
from workers.host.children import Children
from workers.host.claim import Claim
from workers.host.endings import Endings
from workers.host.executing import PATH, Execution
from workers.host.governing import directory
from workers.host.job import Job
from workers.host.run import Run
from workers.host.running import EndRequest, Running, Why
from workers.host.settling import Settling

log = logs.get(__name__)

#: Commands beside the pool at once.
MOST_COMMANDS = 64
#: How long a broker that takes no output is waited for before the oldest of it is dropped.
_PATIENCE_SECONDS = 2.0


class Granted(Protocol):
    """The policy's entry that grants a command (`fleet.policy.Command`)."""

    @property
    def program(self) -> str: ...
    @property
    def cwd(self) -> Sequence[str]: ...
    @property
    def limit_seconds(self) -> float: ...


class Verdict(Protocol):
    """What the governor says (`fleet.policy.Verdict`)."""

    @property
    def command(self) -> Granted | None: ...


class Governor(Protocol):
    """Judges governed requests."""

    def grant(self, claim: Claim, contract: AnyContract, request: Any) -> Verdict:
        """Judge a claimed run again, now.

        Raises `errors.NotGranted` and `errors.TaskFailed` where it is not granted any more.
        """

    def let_begin(self, claim: Claim, contract: AnyContract, request: Any) -> None:
        """Raise `errors.NotGranted` for a claimed run that was let in and may not begin any more."""

    def require_real(self, claim: Claim, contract: AnyContract, request: Any, *, real: Any, granted: Any) -> None:
        """Judge a granted request once more, by where it leads: `real` is the request with its links followed.

        Raises `errors.NotGranted` where that is not granted.
        """

    def recorded(self, *, program: str, argv: Sequence[str], cwd: str, env: Iterable[str]) -> RunAs:
        """Return what is carried out as it goes on record."""

    def mask(self, text: str, /) -> str:
        """Return a text without known secrets."""


#: Of an entry's command line, the index of each argument that is granted as a path, and the root it must lie below
#: (`fleet.policy.paths_in`).
PathsIn = Callable[[Any, tuple[str, ...]], Iterable[tuple[int, str]]]


class Commands:
    """Carries out commands."""

    def __init__(
        self,
        *,
        host: str,
        governor: Governor,
        paths_in: PathsIn,
        secrets: Callable[[], Iterable[bytes]],
        children: Children,
        endings: Endings,
        settling: Settling,
        running: Running,
    ) -> None:
        """`secrets` returns what no output may show, as it is known at that moment."""
        self._host = host
        self._governor = governor
        self._paths_in = paths_in
        self._secrets = secrets
        self._children = children
        self._endings = endings
        self._settling = settling
        self._running = running

    def perform(self, claim: Claim, run: Run) -> None:
        """Carry out one attempt, until its end is in the journal; raises the error it ended with, which is there."""
        try:
            job = self._job(claim)
            self._record(claim, job)
            self._run(claim, job, run)
        except errors.FleetError as exc:  # it did not begin
            kind = exc.kind if isinstance(exc, errors.TaskFailed) else exc.code
            self._refuse(claim, kind, str(exc))
            raise
        except sqlite3.Error:
            raise
        except Exception as exc:  # whatever it is, its run must end all the same
            log.masked_exception("run.broken", self._governor.mask, **claim.about)
            self._refuse(claim, "internal_error", f"{type(exc).__name__}: {exc}")
            raise errors.TaskFailed(f"{type(exc).__name__}: {exc}", kind="internal_error") from exc

    def _run(self, claim: Claim, job: Job, run: Run) -> None:
        self._running.begin(claim.run_id, lambda request: self._end(claim, request))
        with closing(run):  # whoever sees the end has seen all that was written
            ending = self._children.run(job, on_progress=_ignore, listener=_Passing(run))
        if ending is None:
            self._endings.recover(claim, how=self._settling.restart(claim).value)
            self._settling.by_contract(claim)
        else:
            self._settling.by_ending(claim, ending, self._running.requested(claim.run_id))
        self._children.forget(claim.run_id, claim.attempt)

    def _job(self, claim: Claim) -> Job:
        request = RUN.parse(claim.arguments)
        verdict = self._governor.grant(claim, RUN, request)
        granted = verdict.command
        if granted is None:
            raise errors.NotGranted("no entry of the policy grants it", kind="not_in_allow_list")
        real = self._followed(granted, request)
        if real is not request:
            self._governor.require_real(claim, RUN, request, real=real, granted=verdict)
        limits, envelope = claim.envelope.limits, claim.envelope
        asked = limits.hard_seconds if limits else DEFAULT_LIMIT.total_seconds()
        return Job(
            run_id=claim.run_id,
            attempt=claim.attempt,
            task=claim.task,
            arguments={},
            host=self._host,
            description=envelope.description,
            metadata={},
            submitted_by=envelope.submitted_by,
            soft_seconds=None,
            hard_seconds=min(asked, granted.limit_seconds),
            program=_execution(granted, real),
            secrets=tuple(base64.b64encode(secret).decode() for secret in self._secrets()),
        )

    def _record(self, claim: Claim, job: Job) -> None:
        """Report what is about to run: now, because nobody may be left who could say so at its end."""
        run = job.program
        assert run is not None
        granted = RUN.parse(claim.arguments).env
        told = self._governor.recorded(program=run.program.resolved, argv=run.argv, cwd=run.directory, env=granted)
        self._endings.begin_session(claim, told)

    def _followed(self, granted: Granted, request: RunCommand) -> RunCommand:
        """Return the request with each argument that is granted as a path where it leads; itself where none is."""
        arguments = list(request.argv)
        paths = tuple(self._paths_in(granted, request.argv))
        for index, root in paths:
            arguments[index] = followed(arguments[index], root)
        return request.model_copy(update={"argv": tuple(arguments)}) if paths else request

    def _refuse(self, claim: Claim, kind: str, message: str) -> None:
        """End a run whose program never began. What was refused is refused the next time: there is no other attempt."""
        message = canonical.text(self._governor.mask(message))  # a path may hold any bytes
        record = outcomes.unheard(claim, "failed", detail=message)
        self._endings.fail_for_good(claim, kind=kind, message=message, duration_seconds=0.0, session=record)

    def _end(self, claim: Claim, request: EndRequest) -> None:
        self._children.end(claim.run_id, why="cancelled" if request.why is Why.CANCELLED else "stopped")


class _Passing:
    """Passes on what a program says as fast as the broker takes it; the rest waits at the supervisor, which has room.

    A broker that takes nothing is waited for once: the end of a run needs none.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._moves = True

    def say(self, name: str, text: str) -> None:
        self._moves = self._run.wait_for_room(_PATIENCE_SECONDS if self._moves else 0.0)
        self._run.say(name, text)

    def miss(self, lines: int, within: Mapping[str, bool]) -> None:
        self._run.miss(lines, within)


def fixed_environment() -> Mapping[str, str]:
    """Return what every program is given, whatever the worker's own environment is."""
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a user without a name
        home = "/"
    return {"PATH": PATH, "HOME": home or "/", "LANG": "C.UTF-8"}


def _execution(granted: Granted, request: RunCommand) -> Execution:
    return Execution(
        program=programs.find(granted.program),
        argv=(granted.program, *request.argv[1:]),
        environment={**fixed_environment(), **request.env},
        directory=directory(granted.cwd, request),
    )


def followed(path: str, root: str) -> str:
    """Return where a path leads, which must be below where its root does; raises `errors.NotGranted`.

    Of a path that is not there, the directory must be.
    """
    try:
        top, place = Path(root).resolve(strict=True), Path(path)
        # A link to nothing is there: what would be made is where it leads.
        there = os.path.lexists(place)
        found = place.resolve(strict=True) if there else place.parent.resolve(strict=True) / place.name
    except (OSError, RuntimeError) as exc:
        raise errors.NotGranted(f"path {path}: it cannot be followed ({exc})", kind="not_granted") from exc
    if not found.is_relative_to(top):
        raise errors.NotGranted(
            f"path {path}: leads to {found}, which is not below {top}",
            kind="not_granted",
            remedy="the policy grants what lies below that directory",
        )
    if canonical.text(str(found)) != str(found):
        raise errors.NotGranted(
            f"path {path}: leads to {found}, whose name is not UTF-8", kind="not_granted", remedy="give it another name"
        )
    return str(found)


def _ignore(_step: str, _percent: float | None) -> None:
    """Take no note of progress: programs have none."""
