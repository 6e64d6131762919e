"""The table: every key and channel of the broker, as the docstring of `fleet.names` has it, and who may do what there.

`may` has the commands of each role. What follows from them is made in `fleet.security.acl`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["host", "principal", "joiner", "flower", "control"]


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the schema."""

    name: str
    type: str
    writer: str
    reader: str
    ttl: str
    may: Mapping[Role, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One channel of the schema."""

    name: str
    publisher: str
    subscriber: str
    may: Mapping[Role, str] = field(default_factory=dict)


KEYS = (
    Key(
        name="fleet:h:X:q",
        type="list",
        writer="principals, control",
        reader="host X",
        ttl="none",
        may={
            "host": "blmove lmove rpush llen lrem",
            "principal": "lpush llen",
            "flower": "llen",
            "control": "lpush llen lpos lrange lrem watch del",
        },
    ),
    Key(
        name="fleet:h:X:inbox:<epoch>",
        type="list",
        writer="host X",
        reader="host X",
        ttl="none",
        may={"host": "blmove lmove lrange lrem llen", "control": "lpos del"},
    ),
    Key(
        name="fleet:h:X:ctl",
        type="list",
        writer="principals, control",
        reader="host X",
        ttl="none",
        may={"host": "blmove lrange lrem", "principal": "lpush", "control": "lpush lpos lrange lrem del"},
    ),
    Key(
        name="fleet:h:X:dead",
        type="list",
        writer="host X",
        reader="host X",
        ttl="none",
        may={"host": "lpush rpop llen", "control": "del"},
    ),
    Key(
        name="fleet:h:X:epoch",
        type="string",
        writer="host X",
        reader="host X, control",
        ttl="none",
        may={"host": "watch get set", "control": "mget"},
    ),
    Key(
        name="fleet:h:X:out:<run>",
        type="stream",
        writer="host X",
        reader="principals",
        ttl="10 min, 60 s after the end",
        may={"host": "xadd expire", "principal": "xread"},
    ),
    Key(
        name="fleet:presence:X",
        type="string",
        writer="host X",
        reader="control, host X",
        ttl="35 s",
        may={"host": "set get mget del", "principal": "exists", "control": "mget exists del"},
    ),
    Key(
        name="fleet:inventory:X",
        type="string",
        writer="host X",
        reader="principals",
        ttl="3 × 60 s",
        may={"host": "set", "principal": "mget", "control": "del"},
    ),
    Key(
        name="fleet:reports:X",
        type="list",
        writer="host X",
        reader="control",
        ttl="none",
        may={"host": "lpush llen", "control": "lrange ltrim llen"},
    ),
    Key(
        name="fleet:reports:p:P",
        type="list",
        writer="principal P",
        reader="control, principal P",
        ttl="none",
        may={"principal": "lpush lpos", "control": "lrange ltrim llen"},
    ),
    Key(
        name="fleet:reports:dirty",
        type="set",
        writer="hosts, principals",
        reader="control",
        ttl="none",
        may={"host": "sadd", "principal": "sadd", "control": "spop scard"},
    ),
    Key(
        name="fleet:hosts",
        type="hash",
        writer="control",
        reader="principals",
        ttl="none",
        may={"principal": "hget hgetall hkeys", "control": "hset hdel hkeys"},
    ),
    Key(
        name="fleet:principals",
        type="hash",
        writer="control",
        reader="principals",
        ttl="none",
        may={"principal": "hget", "control": "hset hdel hkeys"},
    ),
    Key(
        name="fleet:trust",
        type="string",
        writer="control",
        reader="joining hosts, hosts, principals",
        ttl="none",
        may={"host": "get", "joiner": "get", "principal": "get", "control": "set"},
    ),
    Key(
        name="fleet:policy",
        type="string",
        writer="control",
        reader="hosts, principals",
        ttl="none",
        may={"host": "get", "principal": "get", "control": "set"},
    ),
    Key(
        name="fleet:enroll:requests",
        type="list",
        writer="joining hosts",
        reader="control",
        ttl="none",
        may={"joiner": "lpush", "control": "brpop"},
    ),
    Key(
        name="fleet:enroll:reply:T:R",
        type="list",
        writer="control",
        reader="joining host",
        ttl="60 s",
        may={"joiner": "brpop", "control": "lpush expire"},
    ),
    Key(
        name="fleet:control:lease",
        type="string",
        writer="control",
        reader="control",
        ttl="10 s",
        may={"control": "exists watch get set pexpire del"},
    ),
    Key(
        name="fleet:control:withdrawn",
        type="hash",
        writer="control",
        reader="control",
        ttl="none",
        may={"control": "hset hgetall hdel"},
    ),
    Key(
        name="celery-task-meta-X:<uuid>",
        type="string",
        writer="host X, control",
        reader="principals, control",
        ttl="1 day",
        may={"host": "set", "principal": "get mget", "control": "set get"},
    ),
)

CHANNELS = (
    Channel(
        name="celery-task-meta-X:<uuid>",
        publisher="host X, control",
        subscriber="principals",
        may={"host": "publish", "principal": "subscribe unsubscribe", "control": "publish"},
    ),
    Channel(
        name="fleet:h:X:out:<run>",
        publisher="host X",
        subscriber="principals",
        may={"host": "publish", "principal": "subscribe unsubscribe"},
    ),
    Channel(
        name="/h-X.celeryev/…",
        publisher="host X",
        subscriber="Flower",
        may={"host": "publish", "flower": "psubscribe punsubscribe"},
    ),
    Channel(
        name="fleet:watch",
        publisher="control",
        subscriber="principals",
        may={"principal": "subscribe unsubscribe", "control": "publish"},
    ),
)

#: Commands without a key: what a connection needs, transactions, and what the control plane administrates with.
SESSION: Mapping[Role, str] = {
    "host": "ping time multi exec unwatch client|setname client|setinfo",
    "principal": "ping time multi exec client|setname client|setinfo",
    "joiner": "time client|setname client|setinfo",
    "flower": "ping info client|setname client|setinfo",
    "control": "ping time multi exec unwatch client|setname client|setinfo info scan pubsub|numsub config|get"
    " acl|setuser acl|deluser acl|users acl|save",
}

#: Commands that take items out and see them, that see what a key holds, and that change it. LLEN and EXISTS do neither,
#: and pass with either permission.
TAKING = frozenset({"blmove", "lmove", "rpop", "brpop", "spop"})
READING = TAKING | {"get", "mget", "hget", "hgetall", "hkeys", "lrange", "lpos", "xread"}
WRITING = TAKING | {
    "set",
    "del",
    "lpush",
    "rpush",
    "lrem",
    "ltrim",
    "sadd",
    "hset",
    "hdel",
    "xadd",
    "expire",
    "pexpire",
}
