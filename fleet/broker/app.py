"""The one place that configures Celery: what every app of Fleet shares, with the reason for each setting."""

from typing import Any

from celery import Celery

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


def make(name: str, *, broker_url: str, transport: str, transport_options: dict[str, Any], **config: Any) -> Celery:
    """Return an app with Fleet's settings; `transport` is "module:Class", `config` overrides Celery settings."""
    app = Celery(name, set_as_current=False, fixups=[])
    app.conf.update(
        COMMON,
        broker_url=broker_url,
        broker_transport=transport,
        broker_transport_options={**TRANSPORT_OPTIONS, **transport_options},
        **config,
    )
    return app
