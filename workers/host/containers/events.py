"""The Engine's events: a stream of what changes in the list of containers, which any thread may end.

The Engine sends only the actions named here: the checks of one health-checked container alone would make three events
every few seconds that change nothing. A stream says when to look, and promises no more: what happened before it was
opened, or after it ended, has to be looked up.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import docker
import docker.errors
import requests
from docker.types import CancellableStream

from workers.host.containers.starts import StartTimes

#: Actions that change what is listed (Docker Engine API, v1.41, /events). `health_status` matches "health_status: …".
ACTIONS = (
    "create",
    "start",
    "restart",
    "stop",
    "die",
    "pause",
    "unpause",
    "rename",
    "destroy",
    "health_status",
)
#: A stream silent for so long is opened anew: a connection through a network may be dead without saying so.
QUIET_SECONDS = 600


def open_stream(api: docker.APIClient, starts: StartTimes, *, greeting_seconds: float) -> "EventStream":
    """Open a stream of events from now on; raises docker-py's and requests' errors."""
    # docker-py's own `events` waits for ever on an Engine that takes the connection and says nothing.
    response = api.get(
        f"{api.base_url}/v{api.api_version}/events",
        params={"filters": json.dumps({"type": ["container"], "event": list(ACTIONS)})},
        stream=True,
        timeout=(greeting_seconds, QUIET_SECONDS),
    )
    try:
        response.raise_for_status()
    except requests.HTTPError as exc:
        docker.errors.create_api_error_from_http_exception(exc)
    return EventStream(response, starts)


class EventStream:
    """Events as they come, to be read by one thread; `close` from any thread ends the reading."""

    def __init__(self, response: requests.Response, starts: StartTimes) -> None:
        self._response = response
        self._starts = starts
        self._closed = False
        self._stream = CancellableStream(response.iter_lines(), response)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield events until the Engine ends the stream, it falls silent, or `close`."""
        self._starts.follow(following=True)
        try:
            for line in self._stream:
                if not line:
                    continue
                event = json.loads(line)
                if event.get("Action") in {"start", "restart"}:
                    self._starts.forget(event["Actor"]["ID"])
                yield event
        except (requests.RequestException, ValueError):
            pass  # broken off, silent, or cut in the middle of a line: the reader opens the next one
        except AttributeError:
            if not self._closed:  # how urllib3 meets a connection that was closed under its reader
                raise
        finally:
            self._starts.follow(following=False)
            self._response.close()

    def close(self) -> None:
        """End the reading; harmless when called twice, or after the end."""
        self._closed = True
        with suppress(OSError, AttributeError):  # the connection has ended already
            self._stream.close()
