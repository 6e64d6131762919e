"""Secrets of containers: how a host asks for those that a spec names, and how it is answered.

A value travels sealed to a key that the asking host has just shown under its signature. The host shows the message that
it carries out, so the control plane sees who wants which secrets there, in words that the principal has signed.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: Also the name of a file, so nothing that leads elsewhere.
SECRET_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
SecretName = Annotated[str, StringConstraints(pattern=f"^{SECRET_NAME.pattern}$")]
#: Of one value in bytes, and values of one container.
LARGEST, MOST = 64 * 1024, 32
#: How long a host waits for the control plane, in seconds.
ASKED_FOR_SECONDS = 30.0


class SecretRef(BaseModel):
    """A secret that a container gets, as the file `/run/secrets/<file>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SecretName = Field(description="name of the secret (`fleet secret list`)")
    file: SecretName | None = Field(default=None, description="name of its file; the secret's own where it is not said")

    @property
    def target(self) -> str:
        return self.file or self.name


class SecretsWanted(BaseModel):
    """Data of the report `secrets.wanted`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: the queue item of the run that names the secrets, byte for byte
    message: str = Field(max_length=512 * 1024)
    #: of a run that somebody approved: that word as its approver signed it (`security.signing.SignedControl`)
    approval: str = Field("", max_length=32 * 1024)
    #: X25519 public key that the values are to be sealed to
    seal_to: str = Field(max_length=64)


def pack(values: Mapping[str, bytes]) -> bytes:
    """Return values by their names as the text that is sealed: a JSON object, each value in base64."""
    return json.dumps({name: base64.b64encode(value).decode() for name, value in values.items()}).encode()


def unpack(packed: bytes) -> dict[str, bytes]:
    """Return what was packed; raise ValueError for anything else."""
    try:
        return {str(name): base64.b64decode(value) for name, value in json.loads(packed).items()}
    except (TypeError, AttributeError) as exc:
        raise ValueError("no values by their names") from exc
