"""Logs: catalogued events with fields, on standard error, for people or for programs.

    log = logs.get(__name__)
    log.info("run.rejected", run=run_id, host=host, reason="replay")

An event's name is `noun.past_participle`; what varies goes into fields. Events travel through the standard library's
logging, so a program that imports Fleet sees them in its own logs and decides about them; Fleet's own processes call
`configure`, and structlog renders everything, Celery's, kombu's and Flower's lines included. Passwords and tokens
are masked on the way out, wherever they stand.

Names of fields are the glossary's: `run`, `host` and `principal` for what a line is about. A line is one line, whatever
somebody has put into a name, a result or a message; of several lines is only the traceback behind an event, indented.

Importing this module is cheap: structlog (170 ms) is imported by `configure`.
"""

import logging
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, Protocol

from fleet import redaction

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]

MASK = "***"
#: Names of fields whose value nobody may read.
_SECRET_FIELD = re.compile(r"(?i)(^|_)(password|passwd|secret|token|credential|authorization|cookie|private_key)$")
#: Secrets inside longer texts: a URL's password, and enrollment and bearer tokens after their public ids.
_URL_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/@:]*:)[^\s/@]+(?=@)")
_TOKEN = re.compile(r"(?P<before>\bfleet(?:api)?\.[0-9a-f]{16}\.)[A-Za-z0-9_-]{20,}(\.[A-Za-z0-9_=-]+)?")

#: Libraries that say at `info` what Fleet says in events of its own, and at which level they begin to matter.
_LIBRARIES = {
    "uvicorn": logging.WARNING,
    "celery": logging.WARNING,
    "kombu": logging.WARNING,
    "amqp": logging.WARNING,
    "redis": logging.WARNING,
    "docker": logging.WARNING,
    "urllib3": logging.ERROR,  # warns at each retry of a connection that Fleet reports itself
    "sqlalchemy": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "flower": logging.WARNING,
    "tornado": logging.WARNING,
    "tornado.access": logging.ERROR,  # warns at every 401, and a browser's first visit is one
}


class Stream(Protocol):
    """What events are written to."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


class Event:
    """An event and its fields; as text, `name key=value …`."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name = name
        self.fields = fields

    def __str__(self) -> str:
        shown = (f"{key}={_masked(key, value)}" for key, value in self.fields.items())
        return redaction.for_terminal(" ".join([self.name, *shown]))


class Log:
    """Events under one logger's name, with fields that `bind` adds to each."""

    __slots__ = ("_bound", "_logger")

    def __init__(self, name: str, bound: Mapping[str, Any] | None = None) -> None:
        self._logger = logging.getLogger(name)
        self._bound = dict(bound or {})

    def bind(self, **fields: Any) -> "Log":
        return Log(self._logger.name, {**self._bound, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log at `error`, with the traceback of the exception in hand."""
        self._emit(logging.ERROR, event, fields, exc_info=True)

    def masked_exception(self, event: str, mask: Callable[[str], str], /, **fields: Any) -> None:
        """Do what `exception` does with a traceback that may show a secret: `mask` takes it out."""
        self._emit(logging.ERROR, event, {**fields, "exception": mask(traceback.format_exc().rstrip())})

    def _emit(self, level: int, event: str, fields: dict[str, Any], *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, Event(event, {**self._bound, **fields}), exc_info=exc_info, stacklevel=3)


def get(name: str) -> Log:
    """Return the log of a module: `log = logs.get(__name__)`."""
    return Log(name)


def configure(
    level: Level = "info",
    format: Format = "console",  # noqa: A002
    *,
    stream: Stream | None = None,
    about: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Send everything that is logged in this process to `stream` (standard error); calling again replaces it.

    "console" is a line for people, in color on a terminal, with control characters escaped; "json" an object a line.
    `about` are fields of every line: a host worker's are about its host, a library's as well.
    """
    import structlog

    output = stream or sys.stderr
    renderers: list[Any]
    if format == "json":
        renderers = [structlog.processors.format_exc_info, _mask, structlog.processors.JSONRenderer(default=str)]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=output.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
        renderers = [structlog.processors.format_exc_info, _mask, _escape, console]
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                _unpack,
                partial(_add, about),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ExtraAdder(allow=()),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "_fleet", False):
            root.removeHandler(old)
    handler._fleet = True  # type: ignore[attr-defined] # noqa: SLF001 - our own mark, so that a second call replaces it
    root.addHandler(handler)
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(wanted)
    for name, least in _LIBRARIES.items():
        # One level more than usual where somebody asked for everything.
        logging.getLogger(name).setLevel(max(wanted, logging.INFO if level == "debug" else least))


def _unpack(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take an `Event` apart again; a library's line stays the sentence that it is."""
    record: logging.LogRecord = event["_record"]
    if isinstance(record.msg, Event):
        event["event"] = record.msg.name
        for key, value in record.msg.fields.items():
            event[f"{key}_" if key in event else key] = value
    return event


def _add(
    about: Mapping[str, str], _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {**event, **{name: value for name, value in about.items() if name not in event}}


def _masked(key: str, value: Any) -> Any:
    if _SECRET_FIELD.search(key):
        return MASK
    if isinstance(value, BaseException):
        value = str(value)
    if isinstance(value, str):
        value = _URL_PASSWORD.sub(rf"\g<before>{MASK}", value)
        return _TOKEN.sub(rf"\g<before>{MASK}", value)
    return value


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _masked(key, value) for key, value in event.items()}


def _escape(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what could move or color a terminal: much of what is logged came from elsewhere."""
    return {key: _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: Any) -> Any:
    if key == "exception":  # indented, so that no line of it can pass for an event
        return textwrap.indent(redaction.for_terminal(str(value), keep_newlines=True), "    ", lambda _line: True)
    if value is None or isinstance(value, bool | int | float):
        return value
    return redaction.for_terminal(value if isinstance(value, str) else repr(value))
