"""Output: what a run says while it runs, entry by entry, in a stream of its own on the broker.

The stream holds the newest entries only, so that neither a run that says much nor a reader who is slow fills the
broker. Every entry tells how much was said before it: a reader who missed something knows how much, and says so.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

#: The newest entries that a stream holds, and the longest text of one, in bytes: 4 MiB a run, with credential and
#: signature beside each text.
MOST_ENTRIES = 256
LARGEST_ENTRY_BYTES = 14 * 1024
#: How long a stream is kept after the last entry, in seconds, while its run goes on; and after the run's end.
TTL_SECONDS = 600
ENDED_TTL_SECONDS = 60
#: What the streams of a host's ended runs may hold together; the oldest of them go first.
MOST_ENDED_BYTES = 64 * 1024**2


class Entry(BaseModel):
    """One entry. Its place in the stream is its attempt and its number, `<attempt>-<number>`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: int = 1
    attempt: int = Field(ge=1)
    #: 1, 2, 3 … within the attempt
    number: int = Field(ge=1)
    #: lines that the attempt said before this entry, dropped ones too
    before: int = Field(0, ge=0)
    #: lines in this entry; 0 where its kind has none
    lines: int = Field(0, ge=0)
    #: of text: "stdout" or "stderr", where it goes on in a line that began before this entry
    within: tuple[str, ...] = ()
    #: unix seconds by the broker's clock as the host knows it
    at: float = Field(allow_inf_nan=False)
    #: "text" ({"pieces": [["stdout" or "stderr", text], …]}; pieces go on where the former left off), or another word
    #: of the contract's own
    kind: str = Field(max_length=32)
    data: dict[str, Any]
