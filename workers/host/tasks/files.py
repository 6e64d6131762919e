"""Tasks about single files of this host, each below a directory that somebody in charge granted.

`FileTasks` carries them out under a grant that it is given; whether there is one, the policy says.
"""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from fleet.contracts import RunContext, files
from fleet.contracts.files import FileContent, FilePut, Files, GetFile, ListFiles, PutFile
from workers.host.files import beneath, faults, listing, reading
from workers.host.files.leftovers import Leftovers
from workers.host.files.never import Never
from workers.host.files.writing import Writer
from workers.host.streams import OwnPerformer, StreamedRun

FileRequest = ListFiles | GetFile | PutFile


class Grant(Protocol):
    """What the policy grants of a file operation."""

    @property
    def root(self) -> str:
        """The directory."""

    @property
    def within(self) -> str:
        """The directory that it has to lie below itself, once links are followed; empty for any."""

    @property
    def most_bytes(self) -> int:
        """The largest file that may be read or written."""

    def require_real(self, path: str, /) -> None:
        """Raise `errors.NotGranted` where the policy does not grant what really lies at this path, without links."""


class FileTasks:
    """The contracts about files on one host. Thread-safe."""

    def __init__(self, *, notes: Path, never: Never, follows_links: bool | None = None) -> None:
        """`notes` is a directory of the worker's, `never` are the places that are never granted.

        `follows_links` is whether the kernel can be asked to stay below a directory; None to find out.
        """
        self._never = never
        self._leftovers = Leftovers(notes)
        self._writer = Writer(never=self._never, leftovers=self._leftovers)
        self._follows_links = follows_links

    def take_up(self) -> None:
        """Remove what a former worker left in the middle of a put. For the start: nothing may be put yet."""
        self._leftovers.take_up()

    def list(self, request: ListFiles, grant: Grant) -> Files:
        with beneath.root(grant.root, within=grant.within, follows_links=self._follows_links) as root:
            return listing.entries(root, request.path, never=self._never, require_real=grant.require_real)

    def get(self, request: GetFile, grant: Grant) -> FileContent:
        with beneath.root(grant.root, within=grant.within, follows_links=self._follows_links) as root:
            return reading.content(
                root,
                request.path,
                never=self._never,
                require_real=grant.require_real,
                most_bytes=grant.most_bytes,
            )

    def put(self, request: PutFile, grant: Grant, run_id: str, *, over: Callable[[], bool] = lambda: False) -> FilePut:
        """`over` says whether the run has been ended; nothing is changed for one that was."""
        content = base64.b64decode(request.content, validate=True)
        if len(content) > grant.most_bytes:
            raise faults.too_large(f"the content for {request.path}", len(content), grant.most_bytes)
        with beneath.root(grant.root, within=grant.within, follows_links=self._follows_links) as root:
            return self._writer.put(root, request, content, require_real=grant.require_real, run_id=run_id, over=over)


#: Returns the grant of a request; raises `errors.NotGranted` where there is none.
Granted = Callable[[FileRequest, RunContext], Grant]


class GrantedFiles:
    """The same as performers: the grant of each request comes from elsewhere."""

    def __init__(self, tasks: FileTasks, granted: Granted) -> None:
        self._tasks = tasks
        self._granted = granted

    def performers(self) -> Mapping[str, OwnPerformer]:
        """Return what carries out each contract, by its name."""
        return {files.LIST.name: self.list, files.GET.name: self.get, files.PUT.name: self.put}

    def list(self, request: ListFiles, run: RunContext) -> Files:
        return self._tasks.list(request, self._granted(request, run))

    def get(self, request: GetFile, run: RunContext) -> FileContent:
        return self._tasks.get(request, self._granted(request, run))

    def put(self, request: PutFile, run: StreamedRun) -> FilePut:
        return self._tasks.put(request, self._granted(request, run), run.run_id, over=run.ended)
