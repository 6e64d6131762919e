"""The hooks of kombu, Celery and redis-py that Fleet overrides: these fail when a release moves one of them.

They are semi-private, so the versions are held at 5.7 (pyproject.toml), and this is where an upgrade begins.
"""

import inspect

import celery
import kombu
import pytest
import redis
from celery.worker.consumer import Consumer
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import Channel as VirtualChannel
from kombu.transport.virtual import QoS

from fleet.broker import channel as sending
from workers.host import transport as receiving


@pytest.mark.parametrize("module", [celery, kombu])
def test_the_versions_are_the_ones_that_were_read(module: object) -> None:
    assert module.__version__.startswith("5.7.")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("cls", "method", "parameters"),
    [
        (kombu_redis.Channel, "_put", ["self", "queue", "message"]),
        (kombu_redis.Channel, "_new_queue", ["self", "queue", "auto_delete"]),
        (kombu_redis.Channel, "_queue_bind", ["self", "exchange", "routing_key", "pattern", "queue"]),
        (kombu_redis.Channel, "_brpop_start", ["self", "timeout"]),
        (kombu_redis.Channel, "_brpop_read", ["self"]),
        (kombu_redis.Channel, "close", ["self"]),
        (VirtualChannel, "basic_consume", ["self", "queue", "no_ack", "callback", "consumer_tag"]),
        (Consumer, "create_task_handler", ["self", "promise"]),
        (Consumer, "ensure_connected", ["self", "conn"]),
        (redis.SSLConnection, "_wrap_socket_with_ssl", ["self", "sock"]),
        (redis.Connection, "_connect", ["self"]),
        (redis.Connection, "on_connect_check_health", ["self", "check_health"]),
    ],
)
def test_an_overridden_method_still_has_its_parameters(cls: type, method: str, parameters: list[str]) -> None:
    signature = inspect.signature(getattr(cls, method))
    positional = [p.name for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert positional == parameters


def test_the_poller_still_finds_the_reader_under_the_name_that_is_overridden() -> None:
    source = inspect.getsource(kombu_redis.Channel.__init__)
    assert "'BRPOP': self._brpop_read" in source
    assert "self.QoS = virtual.QoS" in source


def test_no_message_is_put_back_at_shutdown_behind_the_journals_back() -> None:
    assert receiving.Channel.do_restore is False
    assert receiving.Channel.ack_emulation is False
    assert issubclass(receiving.Channel.QoS, QoS)
    assert "restore_unacked_once" not in vars(receiving.Channel.QoS)
    assert "not self.channel.do_restore" in inspect.getsource(QoS.restore_unacked_once)


def test_both_channels_write_bodies_as_they_are() -> None:
    assert sending.Channel.body_encoding is None
    assert receiving.Channel.body_encoding is None
