"""Names: every Redis key, channel, queue and id that Fleet uses, built here and nowhere else.

The schema.  `X` is a host id, `P` a principal's name, `T` the public id of an enrollment token, `R` the
random id of an enrollment request.

| key                          | type    | writer            | reader         | TTL         | holds |
|------------------------------|---------|-------------------|----------------|-------------|-------|
| `fleet:h:X:q`                | list    | principals, control | host X        | none        | pushed messages; LPUSH at the head, taken from the tail |
| `fleet:h:X:inbox:<epoch>`    | list    | host X            | host X         | none        | messages handed over (BLMOVE) and not yet in the journal |
| `fleet:h:X:ctl`              | list    | principals, control | host X         | none        | messages to the worker itself; never waits behind work |
| `fleet:h:X:dead`             | list    | host X            | host X         | none        | items that could not be parsed or were refused, newest 1,000 |
| `fleet:h:X:epoch`            | string  | host X            | host X, control | none        | number of the newest worker session of the host |
| `fleet:h:X:out:<run>`        | stream  | host X            | principals     | 10 min, 60 s after the end | what a run says while it runs, numbered and signed, newest 256 entries; of a host's ended runs the newest 64 MiB |
| `fleet:presence:X`           | string  | host X            | control, host X | 35 s           | the heartbeat; a missing key means "not connected", which principals may ask |
| `fleet:inventory:X`          | string  | host X            | principals     | 3 × 60 s    | containers of the host; a missing key means "unknown" |
| `fleet:reports:X`            | list    | host X            | control        | none        | numbered reports of a host, oldest at the tail |
| `fleet:reports:p:P`          | list    | principal P       | control, principal P | none        | `run.queued` reports of a principal, who looks whether they are still there |
| `fleet:reports:dirty`        | set     | hosts, principals | control        | none        | senders that have news: `X` or `p:P` |
| `fleet:hosts`                | hash    | control           | principals     | none        | accepted hosts, credential, availability: `X` → JSON |
| `fleet:principals`           | hash    | control           | principals     | none        | newest credential of each principal: `P` → JWS |
| `fleet:trust`                | string  | control           | joining hosts, hosts, principals | none | the fleet's keys and whose credentials count, signed |
| `fleet:policy`               | string  | control           | hosts, principals | none     | the fleet's policy and its version, signed |
| `fleet:enroll:requests`      | list    | joining hosts     | control        | none        | enrollment requests |
| `fleet:enroll:reply:T:R`     | list    | control           | joining host   | 60 s        | the answer to request R by token T |
| `fleet:control:lease`        | string  | control           | control        | 10 s        | which control worker may write the ledger |
| `fleet:control:withdrawn`    | hash    | control           | control        | none        | messages taken out of queues and not yet in the ledger: run id → verdict |
| `celery-task-meta-X:<uuid>`  | string  | host X, control   | principals, control | 1 day       | a run's result, in Celery's form |

| channel                      | publisher      | subscriber   | carries |
|------------------------------|----------------|--------------|---------|
| `celery-task-meta-X:<uuid>`  | host X, control | principals  | the same result, once |
| `fleet:h:X:out:<run>`        | host X         | principals   | that the stream of that name has grown; how many hear it says whether anybody follows |
| `/h-X.celeryev/…`            | host X         | Flower       | Celery's events; a hint, never evidence |
| `fleet:watch`                | control        | principals   | every audit event after it is committed |

"Control" is the control plane's user. `fleet.security.table` has the commands of each role on each of these. Ids go
into keys and into the rules made of it with globs, hence the strict form of `HOST_ID`.
"""  # noqa: E501 - a table

import re
import secrets
import time
import uuid

from fleet import errors

#: 1 to 63 of a-z, 0-9 and inner hyphens: one DNS label (RFC 1123), lower case.
HOST_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: The end of a run id, enough of it not to be a guess: lists on narrow terminals show the last 12 digits.
RUN_ENDING = re.compile(r"[0-9a-f-]{4,36}")
#: The same form for principals, so that their names can stand in keys, too.
PRINCIPAL = HOST_ID

#: No host may be called that: `fleet:reports:dirty` is a key already, and "control" is an actor of the audit.
RESERVED = frozenset({"dirty", "control"})

HOSTS = "fleet:hosts"
PRINCIPALS = "fleet:principals"
TRUST = "fleet:trust"
POLICY = "fleet:policy"
REPORTS_DIRTY = "fleet:reports:dirty"
ENROLL_REQUESTS = "fleet:enroll:requests"
CONTROL_LEASE = "fleet:control:lease"
WITHDRAWN = "fleet:control:withdrawn"
WATCH = "fleet:watch"
#: Celery's prefix of result keys (`celery.backends.base.KeyValueStoreBackend.task_keyprefix`).
RESULT_PREFIX = "celery-task-meta-"

_QUEUE = re.compile(rf"fleet:h:(?P<host>{HOST_ID.pattern}):q")


def host_id(value: str) -> str:
    """Return `value` if it is a host id; raise `errors.InvalidValue` that says what one looks like."""
    if not HOST_ID.fullmatch(value):
        raise errors.InvalidValue(
            field="host id",
            value=value,
            problem="is not a host id",
            remedy="use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        )
    if value in RESERVED:
        raise errors.InvalidValue(
            field="host id", value=value, problem="is a word of Fleet's own", remedy="take another name"
        )
    return value


def principal(value: str) -> str:
    """Return `value` if it is a principal's name; raise `errors.InvalidValue` otherwise."""
    if not PRINCIPAL.fullmatch(value):
        raise errors.InvalidValue(
            field="principal",
            value=value,
            problem="is not a principal's name",
            remedy="use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        )
    return value


def derive_id(text: str) -> str:
    """Make a host id or principal's name out of a host or login name: lower case, other characters become '-'.

    Raises `errors.InvalidValue` where nothing usable is left.
    """
    return host_id(re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-"))


def queue(host: str) -> str:
    return f"fleet:h:{host_id(host)}:q"


def host_of_queue(name: str) -> str | None:
    """Return the host whose queue `name` is, or None where it is no host's queue."""
    match = _QUEUE.fullmatch(name)
    return match["host"] if match else None


def control(host: str) -> str:
    return f"fleet:h:{host_id(host)}:ctl"


def inbox(host: str, epoch: int) -> str:
    return f"fleet:h:{host_id(host)}:inbox:{epoch}"


def dead(host: str) -> str:
    return f"fleet:h:{host_id(host)}:dead"


def epoch(host: str) -> str:
    return f"fleet:h:{host_id(host)}:epoch"


def output(run_id: str) -> str:
    """Return the stream of what a run says while it runs, and the channel on which its host tells that it has grown."""
    return f"fleet:h:{host_of_run(run_id)}:out:{run_id.partition(':')[2]}"


def presence(host: str) -> str:
    return f"fleet:presence:{host_id(host)}"


def inventory(host: str) -> str:
    return f"fleet:inventory:{host_id(host)}"


def host_sender(host: str) -> str:
    """Return the name under which a host reports."""
    return host_id(host)


def principal_sender(name: str) -> str:
    """Return the name under which a principal reports; `:` keeps it apart from every host id."""
    return f"p:{principal(name)}"


def reports(sender: str) -> str:
    """Return the report list of a sender (`host_sender` or `principal_sender`)."""
    return f"fleet:reports:{sender}"


def is_sender(value: str) -> bool:
    """Say whether `value` is the form of a sender's name."""
    name = value.removeprefix("p:")
    return HOST_ID.fullmatch(name) is not None and (name != value or name not in RESERVED)


def enroll_reply(token_id: str, request_id: str) -> str:
    """Return where one request is answered: of a token with several uses, no host takes another's answer."""
    return f"fleet:enroll:reply:{token_id}:{request_id}"


def result(run_id: str) -> str:
    return f"{RESULT_PREFIX}{run_id}"


def fanout_prefix(host: str) -> str:
    """Return the prefix of the host's Celery event channels (kombu cuts it off at the first dot)."""
    return f"/h-{host_id(host)}."


#: The pattern by which Flower hears every host.
FANOUT_PATTERN = "/h-*."


def worker_node(host: str) -> str:
    """Return the Celery node name of a host's worker, as Flower shows it."""
    return f"{host_id(host)}@fleet"


def new_run_id(host: str) -> str:
    """Return a fresh run id: `<host>:<uuid7>`, so that a result key names its host and ids sort by time.

    UUID version 7 after RFC 9562, 5.7: 48 bits of milliseconds, then 74 random bits.
    """
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62
    return f"{host_id(host)}:{uuid.UUID(int=number | secrets.randbits(62))}"


def age_of_run(run_id: str) -> float:
    """Return how many seconds ago a run was pushed, by the clocks of who pushed it and of this machine."""
    return time.time() - (uuid.UUID(run_id.partition(":")[2]).int >> 80) / 1000


def host_of_run(run_id: str) -> str:
    """Return the host that a run id names; raise `errors.InvalidValue` for anything that is no run id."""
    host, separator, tail = run_id.partition(":")
    try:
        if not separator or str(uuid.UUID(tail)) != tail:
            raise ValueError(tail)
    except ValueError as exc:
        raise errors.InvalidValue(
            field="task id",
            value=run_id,
            problem="is not a task id",
            remedy="a task id reads HOST:UUID, as `fleet task list` prints it",
        ) from exc
    return host_id(host)
