"""Intake: how much of requests is read, of one and of all together, and for how long.

A body is read before anybody knows whose it is. So it is short, comes soon, and there are never many at once.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

#: More than any push may be (256 KiB of arguments), in bytes.
LARGEST_BODY = 1024 * 1024
#: Of all requests together: what is read becomes objects, which take twenty times as much at worst.
MOST_HELD = 16 * LARGEST_BODY
#: From the first piece of a body to the last.
BODY_WITHIN_SECONDS = 30.0


class TooLarge(HTTPException):
    """Raised out of reading a body. FastAPI's own limit would not be answered as a problem."""

    def __init__(self) -> None:
        super().__init__(413, f"the body has more than {LARGEST_BODY:,} bytes", headers={"Connection": "close"})


class TooMuch(HTTPException):
    """There are so many requests already that this one is not taken."""

    def __init__(self) -> None:
        super().__init__(503, "too much is asked at once")


def announced_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    """Return how large a request's body is to be, 0 for none; None where it does not say beforehand."""
    length = headers.get(b"content-length", b"0")
    found = int(length) if length.isdigit() else None
    return None if found == 0 and b"transfer-encoding" in headers else found


class Intake:
    """What is being read of all requests; for one event loop."""

    def __init__(self) -> None:
        self._held = 0

    @contextmanager
    def bounded(self, receive: Receive) -> Iterator[Receive]:
        """Give a `receive` that reads only so much, and only for so long; it raises `HTTPException`."""
        loop = asyncio.get_running_loop()
        read, is_whole, ends = 0, False, loop.time() + BODY_WITHIN_SECONDS

        async def bounded() -> Message:
            nonlocal read, is_whole
            if is_whole:  # what comes now is that the caller has gone
                return await receive()
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not come", headers={"Connection": "close"}) from None
            is_whole = not message.get("more_body", False)
            piece = len(message.get("body", b""))
            read += piece
            self._held += piece
            if read > LARGEST_BODY:
                raise TooLarge
            if self._held > MOST_HELD:
                raise TooMuch
            return message

        try:
            yield bounded
        finally:
            self._held -= read
