"""The stage of small pieces of work: one broker, somebody's credentials, and an administrator who plays the others."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import kombu
import redis

from fleet.address import Address
from fleet.broker.connection import connect
from tests.services import locked
from tests.services.broker import Broker

HOST = "h1"
#: Id and secret of the joiner's token.
TOKEN, SECRET = "0123456789abcdef", "s" * 43


@dataclass(frozen=True)
class Stage:
    """What a piece of work is given."""

    broker: Broker
    user: str
    directory: Path
    admin: "redis.Redis"
    #: how long it waits for what a denial would keep from coming, in seconds
    patience: float
    _stack: ExitStack

    @property
    def address(self) -> Address:
        return locked.address(self.broker, self.user)

    def client(self, *, name: str = "work") -> "redis.Redis":
        """Return a client of the user, connected anew."""
        return connected(self.address, self._stack, name=name, patience=self.patience)


Work = Callable[[Stage], None]
#: What needs each word of a role's rules, by its selector (that goes by its first key, or channel with the `&`; "" is
#: outside of all of them) and the word itself.
Needs = Mapping[str, Mapping[str, Work]]


def connected(address: Address, stack: ExitStack, *, name: str, patience: float) -> "redis.Redis":
    client = connect(address, name=name, connections=3, timeout=timedelta(seconds=patience))
    stack.callback(client.connection_pool.disconnect)
    return client


@contextmanager
def stage(broker: Broker, user: str, directory: Path, *, patience: float = 30.0) -> Iterator[Stage]:
    with ExitStack() as stack, broker.connect() as admin:
        stack.callback(admin.connection_pool.disconnect)
        stack.callback(kombu.pools.reset)  # shared by the whole process, and connected under the rules of this test
        yield Stage(broker, user, directory, admin, patience, stack)
