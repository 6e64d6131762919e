"""Wheel: the Fleet that runs here, as a file that pip installs, because no package index has it.

It is packed from the installed files, or from the checkout of an editable installation, in the layout that
pyproject.toml gives the wheel. The same files make the same bytes.
"""

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import fleet
from fleet import errors, services, version

#: The first moment that a zip file can name: a wheel says nothing of when it was packed.
_THEN = (1980, 1, 1, 0, 0, 0)
_TAG = "py3-none-any"
#: Of the metadata: what an installer needs. The rest says how this machine got it.
_METADATA = ("METADATA", "entry_points.txt")
_SERVICES = ("workers", "beat", "config")


def pack() -> tuple[str, bytes]:
    """Return the wheel's file name and its content; raise `errors.LocalFault` where Fleet is not installed."""
    try:
        found = metadata.distribution(version.DISTRIBUTION)
    except metadata.PackageNotFoundError as exc:
        raise errors.LocalFault(
            "Fleet is not installed here, so its wheel cannot be packed", remedy="run it from an installation"
        ) from exc
    stem = f"{version.DISTRIBUTION}-{found.version}"
    info = f"{stem}.dist-info"
    files = dict(_package())
    files |= {f"{info}/{name}": _told(found, name).encode() for name in _METADATA}
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: fleet\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=_THEN)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return f"{stem}-{_TAG}.whl", packed.getvalue()


def _package() -> Iterator[tuple[str, bytes]]:
    package, home = Path(fleet.__file__).parent, services.folder()
    yield from _below(package, "fleet")
    if services.is_checkout():
        for name in _SERVICES:
            yield from _below(home / name, f"fleet/_services/{name}")


def _below(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _told(found: metadata.Distribution, name: str) -> str:
    text = found.read_text(name)
    if text is None:
        raise errors.LocalFault(f"Fleet's installation has no {name}", remedy=f"install `{version.DISTRIBUTION}` again")
    return text


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()
