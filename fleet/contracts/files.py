"""Contracts about single files of a host, below the directories that the fleet's policy grants.

Links are followed as far as they stay below the granted directory. Only regular files are read and written; a file is
replaced as a whole, or not at all.
"""

import base64
import binascii
import re
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints, field_validator

from fleet.contracts.contract import Contract, Reply, Request, Restart, Risk

#: The largest file that is read, and the largest that is written: the one travels in a reply, the other in a message
#: (256 KiB with everything). In bytes.
LARGEST_GET = 1024 * 1024
LARGEST_PUT = 128 * 1024
#: Of a reply as JSON, in bytes: a file in base64, or the entries of a directory.
_LARGEST_REPLY = 1536 * 1024
#: Entries of a directory in one reply.
MOST_ENTRIES = 2000

_MODE_ASKED = r"^0?[0-7]{3}$"

#: An absolute path without `.`, `..`, empty parts or control characters.
FilePath = Annotated[str, StringConstraints(max_length=4096, pattern=r"^/[^\x00-\x1f\x7f]*$")]
#: A user or group, by name or number.
Owner = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$|^[0-9]{1,9}$")]
#: Permissions of a file, octal, with the setuid, setgid and sticky bits: "0644".
Mode = Annotated[str, StringConstraints(pattern=r"^[0-7]{4}$")]


class _OnPath(Request):
    path: FilePath

    @field_validator("path", mode="before")
    @classmethod
    def _say_absolute(cls, value: object) -> object:
        if isinstance(value, str) and not value.startswith("/"):
            raise ValueError("write an absolute path, such as /srv/app/app.env")
        return value

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if value != "/" and any(part in {"", ".", ".."} for part in value[1:].split("/")):
            raise ValueError("write the path without '.', '..' and double or trailing slashes")
        return value


class ListFiles(_OnPath):
    """A directory."""


class GetFile(_OnPath):
    """A regular file."""


class PutFile(_OnPath):
    """A regular file, to be made or replaced as a whole."""

    #: base64 (RFC 4648, section 4)
    content: str = Field(max_length=LARGEST_PUT * 4 // 3 + 4)
    #: permissions, octal: "0644"; None for those of the file that is replaced, 0644 for a new one
    mode: str | None = Field(None, pattern=_MODE_ASKED)
    #: owner and group; None for those of the file that is replaced, the worker's own for a new one
    owner: Owner | None = None
    group: Owner | None = None

    @field_validator("mode", mode="before")
    @classmethod
    def _say_octal(cls, value: object) -> object:
        if isinstance(value, str) and not re.fullmatch(_MODE_ASKED, value):
            raise ValueError("write it in octal, such as 0644; setuid, setgid and sticky bits cannot be asked for")
        return value

    @field_validator("content")
    @classmethod
    def _check_content(cls, value: str) -> str:
        try:
            size = len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError) as exc:
            raise ValueError("the content is not base64") from exc
        if size > LARGEST_PUT:
            raise ValueError(f"the content has {size:,} bytes; {LARGEST_PUT:,} are the most")
        return value


class FileEntry(Reply):
    """One entry of a directory, not followed where it is a link."""

    name: str
    kind: Literal["file", "directory", "link", "other"]
    size: int = 0
    mode: Mode
    owner: str = ""
    group: str = ""
    modified: AwareDatetime
    #: where a link leads, as it is written in it
    target: str = ""


class Files(Reply):
    entries: tuple[FileEntry, ...] = ()
    #: whether there are more
    truncated: bool = False


class FileContent(Reply):
    #: base64
    content: str
    size: int
    mode: Mode
    owner: str
    group: str
    modified: AwareDatetime
    #: hexadecimal
    sha256: str


class FilePut(Reply):
    size: int
    mode: Mode
    owner: str
    group: str
    #: hexadecimal
    sha256: str
    #: of what was there before; empty for a new file
    replaced_sha256: str = ""


LIST = Contract(
    name="fleet.files.list",
    summary="List a directory of the host.",
    request=ListFiles,
    reply=Files,
    risk=Risk.READS,
    idempotent=True,
    governed=True,
    largest_reply=_LARGEST_REPLY,
)
GET = Contract(
    name="fleet.files.get",
    summary="Read a file of the host.",
    request=GetFile,
    reply=FileContent,
    risk=Risk.READS,
    idempotent=True,
    governed=True,
    largest_reply=_LARGEST_REPLY,
)
PUT = Contract(
    name="fleet.files.put",
    summary="Write a file of the host, as a whole or not at all.",
    request=PutFile,
    reply=FilePut,
    risk=Risk.CHANGES,
    idempotent=False,
    on_restart=Restart.UNKNOWN,
    governed=True,
)
ALL = (LIST, GET, PUT)
