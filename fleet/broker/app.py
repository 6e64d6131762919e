"""The one place that configures Celery: what every app of Fleet shares, with the reason for each setting."""

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from kombu import Connection

from fleet.address import Address
from fleet.broker import tls

#: For every connection to the broker that kombu makes. Without time-outs, one silent link stops a process for good.
TRANSPORT_OPTIONS: dict[str, Any] = {
    "priority_steps": [0],  # one list a queue; kombu's default of four would make four keys a host
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "retry_on_timeout": True,
    "socket_keepalive": True,
    "health_check_interval": 5,  # notices a half-open link while the consumer waits
}

COMMON: dict[str, Any] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],  # a pickle or yaml body is code
    "result_accept_content": ["json"],
    "enable_utc": True,
    "task_default_queue": "fleet:unrouted",  # nobody consumes it: a push without a host goes nowhere
    "task_ignore_result": False,
    "broker_connection_retry": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # the default gives up after 100 tries, and the process with it
    "broker_channel_error_retry": False,  # a refused command would loop; exit, and let the supervisor say so
    "redis_socket_timeout": 5,  # the backend's default of 120 s holds a caller for two minutes
    "redis_socket_connect_timeout": 3,
    "redis_retry_on_timeout": True,
    "redis_socket_keepalive": True,
    "redis_backend_health_check_interval": 10,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_proc_alive_timeout": 10,
}


class App(Celery):
    """A Celery app of one broker and one backend.

    Celery lets the environment overrule an app (`CELERY_BROKER_URL` and its like): there it stands for the caller's own
    Celery, and would send Fleet's messages elsewhere, in plaintext if it says so.
    """

    #: set by `make`
    address: Address
    #: raises `errors.NotTrusted` for what is not the result of that run; set by whoever awaits results
    check_result: Callable[[Mapping[str, Any], str], None] | None = None

    def _connection(self, _url: str | None, **options: Any) -> Connection:
        made: Any = super()
        connection: Connection = made._connection(self.address.url, **options)  # noqa: SLF001 - overridden here
        return connection


def make(
    name: str,
    *,
    broker: Address,
    transport: str,
    transport_options: dict[str, Any],
    result_backend: str = "disabled://",
    **config: Any,
) -> Celery:
    """Return an app with Fleet's settings; `transport` and `result_backend` are "module:Class", the backend of which
    reads from the same broker, `config` overrides Celery settings."""
    app = App(name, set_as_current=False, fixups=[])
    app.address = broker
    app.backend_cls = result_backend if "://" in result_backend else f"{result_backend}+{broker.url}"
    options = tls.options(broker)
    app.conf.update(
        COMMON,
        broker_url=broker.url,
        broker_use_ssl=options or False,  # never True: kombu takes that for plaintext
        redis_backend_use_ssl=options or None,
        broker_transport=transport,
        broker_transport_options={**TRANSPORT_OPTIONS, **transport_options},
        **config,
    )
    return app
