"""The session epoch: a number that each worker session of a host takes once, larger than all before."""

from typing import Any

import redis

from fleet import names


def take(client: "redis.Redis", host: str, *, at_least: int) -> int:
    """Take the next epoch and return it.

    `at_least` is the newest that the journal remembers: a broker that lost its disk must not hand out a number again.
    """
    key = names.epoch(host)
    pipe: Any
    with client.pipeline() as pipe:
        while True:
            try:
                pipe.watch(key)
                epoch = max(int(pipe.get(key) or 0), at_least) + 1
                pipe.multi()
                pipe.set(key, epoch)
                pipe.execute()
            except redis.WatchError:
                continue
            return epoch
