"""Queues: how long each is, for Flower's page of the broker."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from fleet.address import Address
from fleet.broker import connection

#: A page waits for it.
_PATIENCE = timedelta(seconds=2)


class Queues:
    """Stands where Flower's client of a broker stands."""

    def __init__(self, broker: Address) -> None:
        self._broker = broker

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return name and length of each queue; raises `errors.BrokerUnavailable`, which the page takes."""
        return await asyncio.to_thread(self._look, list(names))

    def _look(self, names: list[str]) -> list[dict[str, Any]]:
        client = connection.connect(self._broker, name="flower-queues", timeout=_PATIENCE)
        try:
            with connection.translated(self._broker), client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.llen(name)
                lengths = pipe.execute()
        finally:
            client.close()
        return [{"name": name, "messages": length} for name, length in zip(names, lengths, strict=True)]
