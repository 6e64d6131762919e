"""Root trees: the file system of a container image, put together from programs of this machine.

No image can be pulled where the tests run, so the few images that they need are made here: each program is copied
with the shared libraries that the dynamic linker would load for it.  What comes out is a tar stream that
`docker import` takes.  It promises programs that run; it has no package manager and no package database.
"""

import io
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

#: Merged /usr, as in Debian 12: programs name their interpreter by the old paths.
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_DIRECTORIES = {
    "etc": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
}
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class RootTree:
    """A root file system under construction: paths in the image (no leading slash), and where each comes from."""

    def __init__(self) -> None:
        self._sources: dict[str, Path] = {}
        self._texts: dict[str, tuple[str, int]] = {name: (text, 0o644) for name, text in _ACCOUNTS.items()}
        self._links: dict[str, str] = dict(_LINKS)
        self._directories: dict[str, int] = dict(_DIRECTORIES)

    def program(self, source: Path, target: str = "") -> None:
        """Add one program, at its own path unless `target` names another, and every library it loads."""
        self._add(source, target or str(source.parent.resolve() / source.name).lstrip("/"))
        self._libraries([source])

    def programs(self, names: Iterable[str]) -> None:
        """Add programs by their names, from where this machine's PATH has them."""
        for directory in (Path("/usr/bin"), Path("/usr/sbin")):
            for name in names:
                if (directory / name).is_file():
                    self.program(directory / name)

    def tree(self, source: Path, target: str, *, without: Iterable[str] = ()) -> None:
        """Add a directory with all below it but for directories named in `without`, and the libraries it loads."""
        left_out, binaries = set(without), []
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source)
            if left_out.isdisjoint(relative.parts) and path.is_file():
                self._add(path, f"{target}/{relative}")
                if ".so" in path.name or path.parent.name == "bin":
                    binaries.append(path)
        self._libraries(binaries)

    def file(self, source: Path, target: str) -> None:
        """Add one file as it is."""
        self._add(source, target)

    def system_library(self, name: str) -> None:
        """Add a shared library that programs load by name at run time, and what it loads."""
        source = Path("/usr/lib") / str(sysconfig.get_config_var("MULTIARCH")) / name
        self.program(source)

    def text(self, target: str, content: str, *, mode: int = 0o644) -> None:
        self._texts[target] = (content, mode)

    def link(self, target: str, to: str) -> None:
        self._links[target] = to

    def directory(self, target: str, *, mode: int = 0o755) -> None:
        self._directories[target] = mode

    def account(self, name: str, *, uid: int, home: str) -> None:
        """Add a system account with a group of the same name and number."""
        for target, line in (
            ("etc/passwd", f"{name}:x:{uid}:{uid}::{home}:/bin/sh"),
            ("etc/group", f"{name}:x:{uid}:"),
        ):
            content, mode = self._texts[target]
            self._texts[target] = (f"{content}{line}\n", mode)

    def write(self, stream: IO[bytes]) -> None:
        """Write the tree as an uncompressed tar: everything belongs to root."""
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for name, mode in self._directories.items():
                archive.addfile(_entry(name, mode=mode, kind=tarfile.DIRTYPE))
            for name, to in self._links.items():
                entry = _entry(name, mode=0o777, kind=tarfile.SYMTYPE)
                entry.linkname = to
                archive.addfile(entry)
            for name, (content, mode) in self._texts.items():
                data = content.encode()
                archive.addfile(_entry(name, mode=mode, size=len(data)), io.BytesIO(data))
            for name, source in self._sources.items():
                status = source.stat()
                with source.open("rb") as file:
                    entry = _entry(name, mode=status.st_mode & 0o755, size=status.st_size)
                    entry.mtime = int(status.st_mtime)
                    archive.addfile(entry, file)

    def _add(self, source: Path, target: str) -> None:
        first, _, rest = target.partition("/")
        self._sources[f"{_LINKS.get(first, first)}/{rest}"] = source

    def _libraries(self, binaries: list[Path]) -> None:
        """Add what the dynamic linker would load: `name => /path (0x…)`, or the linker itself as `/path (0x…)`."""
        if not binaries:
            return
        # ldd exits with 1 where one of the files is a script or static; the lines of the others are complete.
        listed = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
        for line in listed.splitlines():
            words = line.split()
            if len(words) < 2 or not words[-1].startswith("(0x") or not words[-2].startswith("/"):
                continue
            library = Path(words[-2])
            home = library.parent.resolve()
            # A library from outside the system's directories (a Python built by hand) is found in the standard one.
            if not home.is_relative_to("/usr/lib") and not home.is_relative_to("/usr/lib64"):
                home = Path("/usr/lib")
            self._add(library, str(home / library.name).lstrip("/"))


def _entry(name: str, *, mode: int, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.type = mode, size, kind
    return entry
