"""What there is to attack: a broker with everybody's users, and something in every key."""

import json
from typing import Any

import redis

from fleet import names
from fleet.security import acl
from tests.hostile.stage import TOKEN
from tests.services.broker import Broker
from tests.services.locked import PRINCIPAL, admit, hashes, lock

#: Hosts beside h1, whose names begin like its own or do not, a principal beside alice, and a token beside the joiner's.
OTHERS = ("h2", "h10", "h1-x")
BOB = "bob"
OTHER_TOKEN = "fedcba9876543210"
RUN = "01a1fd10-8b9d-7cb1-ba2b-2607117db187"

Digest = dict[bytes, bytes]


def prepare(broker: Broker) -> None:
    """Lock the broker, let everybody in, and put something into every key."""
    lock(broker)
    hosts = [acl.host(host, hashes(f"h-{host}")) for host in ("h1", *OTHERS)]
    joiners = [acl.joiner(token, hashes(f"join-{token}")) for token in (TOKEN, OTHER_TOKEN)]
    principals = [acl.principal(name, hashes(f"p-{name}")) for name in (PRINCIPAL, BOB)]
    admit(broker, *hosts, *joiners, *principals)
    with broker.connect() as admin, admin.pipeline() as pipe:
        for host in ("h1", *OTHERS):
            for a_list in (names.queue(host), names.inbox(host, 1), names.control(host), names.dead(host)):
                pipe.lpush(a_list, "item", "another")
            for a_string in (names.epoch(host), names.presence(host), names.inventory(host)):
                pipe.set(a_string, "1")
            pipe.set(names.result(f"{host}:{RUN}"), json.dumps({"status": "SUCCESS"}))
            pipe.xadd(names.output(f"{host}:{RUN}"), {"entry": "said"}, id="1-1")
            pipe.lpush(names.reports(host), "report")
            pipe.hset(names.HOSTS, host, json.dumps({"labels": {}}))
        for name in (PRINCIPAL, BOB):
            pipe.lpush(names.reports(names.principal_sender(name)), "report")
            pipe.hset(names.PRINCIPALS, name, "credential")
        for token in (TOKEN, OTHER_TOKEN):
            pipe.lpush(names.enroll_reply(token, "request"), "answer")
        pipe.lpush(names.ENROLL_REQUESTS, "request")
        pipe.sadd(names.REPORTS_DIRTY, "h2")
        pipe.hset(names.WITHDRAWN, f"h2:{RUN}", "verdict")
        pipe.set(names.CONTROL_LEASE, "token of the lease")
        pipe.set(names.TRUST, "the fleet's keys")
        pipe.set(names.POLICY, "the fleet's policy")
        pipe.set("elsewhere", "nobody's")
        pipe.execute()
        admin.acl_log_reset()


def digest(admin: "redis.Redis") -> Digest:
    """Return everything that the broker holds, by its key."""
    command: Any = admin.execute_command
    keys = sorted(command("KEYS", "*", NEVER_DECODE=True))
    return {key: command("DUMP", key, NEVER_DECODE=True) for key in keys}
