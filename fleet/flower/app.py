"""The Flower process: how it is set up, on which address it listens, and how it ends."""

import signal
from collections.abc import Callable

from celery import Celery
from flower.app import Flower
from flower.options import options
from flower.urls import settings as web_settings
from tornado.ioloop import IOLoop

from fleet import errors, logs, names
from fleet.address import Address
from fleet.broker import app as broker_app
from fleet.broker import connection
from fleet.flower import pages
from fleet.flower.heard import Inspector, Listener
from fleet.flower.password import obtain, path
from fleet.flower.queues import Queues
from fleet.settings import Settings

log = logs.get(__name__)

#: Bounds of memory: a task costs about 5 KB, a worker about 10.
MAX_TASKS = 10_000
MAX_WORKERS = 20_000


class Window(Flower):  # type: ignore[misc]
    """Flower, listening only."""

    def __init__(self, capp: Celery, broker: Address) -> None:
        loop = IOLoop.current()
        events = Listener(capp, loop, max_workers=MAX_WORKERS, max_tasks=MAX_TASKS)
        super().__init__(options=options, capp=capp, events=events, io_loop=loop, **web_settings)
        self.inspector = Inspector(events, broker)
        # For the page of the broker. Flower would take it from kombu, which names our transport in it.
        self.broker_uri = str(broker)
        self.queues = Queues(broker)
        self.add_handlers(r".*", list(pages.HANDLERS))


def main(settings: Settings, *, say: Callable[[str], None], private: bool) -> int:
    """Run Flower until it is told to stop; `say` gets what people should see, once.

    With `private` a person reads that and nobody keeps it, so a password that was made just now is shown.

    Raises `errors.LocalFault` where the port is taken, `errors.BrokerRefused` where the broker does not take us. A
    broker that is merely away is waited for.
    """
    broker = settings.require_broker_of_flower()
    _refuse_hopeless(broker)
    password, made = obtain(settings)
    _configure(settings, password.get_secret_value())
    window = Window(_celery(broker), broker)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` asks to outlive the terminal
            window.io_loop.asyncio_loop.add_signal_handler(number, window.stop)
    try:
        window.start_http_server()
    except OSError as exc:
        raise errors.LocalFault(
            f"Flower cannot listen on {settings.flower_address} port {settings.flower_port} ({exc.strerror or exc})",
            remedy="choose another: --port N, FLEET_FLOWER_PORT, FLEET_FLOWER_ADDRESS",
        ) from exc
    say(f"Flower: http://{settings.flower_address}:{settings.flower_port}  user {settings.flower_user}")
    if made and not private:
        say(f"Password: in {path(settings)}")
    elif made:
        say(f"Password (shown this once, kept in {path(settings)}): {password.get_secret_value()}")
    log.info("flower.started", address=settings.flower_address, port=settings.flower_port)
    window.start()
    log.info("flower.stopped")
    return 0


def _refuse_hopeless(broker: Address) -> None:
    """Raise `errors.BrokerRefused` for what waiting would not mend."""
    client = connection.connect(broker, name="flower")
    try:
        connection.check(client, broker)
    except errors.BrokerRefused:
        raise
    except errors.BrokerUnavailable as exc:
        log.warning("broker.missed", error=str(exc), next="tried again every second")
    finally:
        client.close()


def _configure(settings: Settings, password: str) -> None:
    """Set Flower's options, which are global to the process. What is not set here keeps Flower's default."""
    if ":" in settings.flower_user:
        raise errors.InvalidValue(
            field="flower_user", value=settings.flower_user, problem="holds a colon", remedy="leave the colon out"
        )
    options.address = settings.flower_address
    options.port = settings.flower_port
    options.basic_auth = [f"{settings.flower_user}:{password}"]
    options.read_only = True
    options.enable_events = False
    options.max_tasks = MAX_TASKS
    options.max_workers = MAX_WORKERS


def _celery(broker: Address) -> Celery:
    """Return an app that can listen and knows no task of ours."""
    return broker_app.make(
        "fleet.flower",
        broker=broker,
        transport="fleet.flower.channel:Transport",
        transport_options={"fanout_prefix": names.FANOUT_PATTERN, "fanout_patterns": True},
    )
