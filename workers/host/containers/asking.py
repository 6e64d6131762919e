"""Asking for secrets: a run's are asked of the control plane, and come sealed on the control list.

What is asked is the message itself that a principal signed; what is answered is for a key of this host alone. Nothing
of a value is in the journal, the outbox or a log.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fleet import errors, logs
from fleet.contracts.control import SecretsIssued
from fleet.contracts.secrets import ASKED_FOR_SECONDS, SecretRef, SecretsWanted, unpack
from workers.host.containers.keeping import SecretFiles

log = logs.get(__name__)

#: A question that had no answer for so long was lost with its asker; it is put once more.
_AGAIN_SECONDS = 8.0
#: How soon a run that waits notices that it is to end.
_LOOK_SECONDS = 0.5
_REMEDIES = {
    "unknown_secret": "`fleet secret list` shows those there are",
    "not_permitted": "`fleet secret list` shows for whom each of them is",
}

#: Sends the report for a run.
Ask = Callable[[str, dict[str, Any]], None]
#: Returns the queue item of a run that is carried out, and the approval of it.
Message = Callable[[str], tuple[str, str] | None]


class Secrets:
    """Gets the secrets of containers and keeps them (`SecretFiles`). Thread-safe."""

    def __init__(
        self, files: SecretFiles, *, ask: Ask, message: Message, is_ended: Callable[[str], bool] = lambda _run: False
    ) -> None:
        """`is_ended` says whether a run is to end that waits."""
        self.files = files
        self._is_ended = is_ended
        self._ask = ask
        self._message = message
        self._changed = threading.Condition()
        #: run id → its answer; None while that is waited for
        self._answers: dict[str, SecretsIssued | None] = {}

    def prepare(self, run_id: str, refs: Sequence[SecretRef]) -> Path:
        """Have a run's secrets as files; return the directory to bind. `settle` or `discard` comes next.

        Raises `errors.TaskFailed` (of kind `secrets_unavailable`, or why they are refused), `errors.LocalFault` where
        they would lie on a disk.
        """
        self.files.require_memory()
        if len({ref.target for ref in refs}) < len(refs):
            raise errors.TaskFailed("secrets: two of them would be the same file", kind="invalid_arguments")
        values = self._get(run_id)
        lacking = [ref.name for ref in refs if ref.name not in values]
        if lacking:
            raise errors.TaskFailed(f"secrets: {', '.join(lacking)} did not come", kind="secrets_unavailable")
        return self.files.write(run_id, {ref.target: values[ref.name] for ref in refs})

    def settle(self, run_id: str, *, docker_id: str, uid: int, gid: int) -> None:
        """Give the files to the container's user; see `SecretFiles.settle`."""
        self.files.settle(run_id, docker_id=docker_id, uid=uid, gid=gid)

    def done(self, run_id: str) -> None:
        """The run is over and its container stays; see `SecretFiles.done`."""
        self.files.done(run_id)

    def discard(self, run_id: str) -> None:
        """Remove everything of one run."""
        self.files.discard(run_id)

    def answer(self, issued: SecretsIssued) -> None:
        """Take the control plane's answer; one that nobody waits for is dropped."""
        with self._changed:
            if issued.run in self._answers and issued.seal_to == self.files.opener.public:
                self._answers[issued.run] = issued
                self._changed.notify_all()

    def _get(self, run_id: str) -> dict[str, bytes]:
        found = self._message(run_id)
        if found is None:
            raise errors.TaskFailed("secrets: the run is not in the journal", kind="secrets_unavailable")
        message, approval = found
        asked = SecretsWanted(message=message, approval=approval, seal_to=self.files.opener.public)
        wanted = asked.model_dump(mode="json")
        with self._changed:
            self._answers[run_id] = None
        try:
            issued = self._await(run_id, wanted)
        finally:
            with self._changed:
                del self._answers[run_id]
        if issued is None:
            raise errors.TaskFailed(
                f"secrets: the control plane did not answer within {ASKED_FOR_SECONDS:.0f} s",
                kind="secrets_unavailable",
                remedy="`fleet health control` says whether one runs",
            )
        if issued.refused:
            raise errors.TaskFailed(
                f"secrets: {issued.detail}", kind=issued.refused, remedy=_REMEDIES.get(issued.refused, "")
            )
        try:
            return unpack(self.files.opener.open(issued.sealed))
        except ValueError as exc:
            raise errors.TaskFailed("secrets: what came cannot be opened", kind="secrets_unavailable") from exc

    def _await(self, run_id: str, wanted: dict[str, Any]) -> SecretsIssued | None:
        begun, asked_at = time.monotonic(), float("-inf")
        while time.monotonic() - begun < ASKED_FOR_SECONDS:
            if time.monotonic() - asked_at > _AGAIN_SECONDS:
                asked_at = time.monotonic()
                self._ask(run_id, wanted)
            with self._changed:
                if self._changed.wait_for(lambda: self._answers[run_id] is not None, _LOOK_SECONDS):
                    return self._answers[run_id]
            if self._is_ended(run_id):
                raise errors.TaskCancelled("it was ended while it waited for its secrets")
        return None
