"""The file tasks of a host on a real directory, under a grant of a test's own."""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet import errors, names
from fleet.contracts.files import LARGEST_GET, FileContent, FilePut, Files, GetFile, ListFiles, PutFile
from workers.host.files.never import Never
from workers.host.tasks.files import FileTasks


@dataclass(frozen=True)
class Grant:
    root: str
    most_bytes: int = LARGEST_GET
    within: str = ""

    def require_real(self, path: str) -> None:
        """Have no objection to where a path leads."""


class Host:
    """`root` is granted, `outside` lies beside it, and `state` is Fleet's own."""

    def __init__(self, directory: Path, *, never: Iterable[Path] = (), follows_links: bool | None = None) -> None:
        self.root, self.outside, self.state = (directory / name for name in ("root", "outside", "state"))
        for each in (self.root, self.outside, self.state):
            each.mkdir(exist_ok=True)
        self.notes = self.state / "putting"
        self.tasks = FileTasks(notes=self.notes, never=Never((self.state, *never)), follows_links=follows_links)

    def grant(self, root: Path | str | None = None, **more: Any) -> Grant:
        return Grant(str(root or self.root), **more)

    def list(self, path: Path | str, *, root: Path | str | None = None) -> Files:
        return self.tasks.list(ListFiles(path=str(path)), self.grant(root))

    def get(self, path: Path | str, *, root: Path | str | None = None, **more: Any) -> FileContent:
        return self.tasks.get(GetFile(path=str(path)), self.grant(root, **more))

    def put(
        self,
        path: Path | str,
        content: bytes = b"new",
        *,
        root: Path | str | None = None,
        most_bytes: int = LARGEST_GET,
        over: Callable[[], bool] = lambda: False,
        **wishes: Any,
    ) -> FilePut:
        request = PutFile(path=str(path), content=base64.b64encode(content).decode(), **wishes)
        grant = self.grant(root, most_bytes=most_bytes)
        return self.tasks.put(request, grant, names.new_run_id("edge"), over=over)


def refused(kind: str, attempt: Callable[[], object]) -> str:
    """Return what is said about something that must be refused as `kind`."""
    with pytest.raises(errors.TaskFailed) as caught:
        attempt()
    assert caught.value.kind == kind, caught.value
    return str(caught.value)
