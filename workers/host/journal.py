"""The journal: what this host accepted, started and finished; the memory by which nothing runs twice.

A run is `accepted` before its message leaves the broker (`workers.host.admission`), claimed (`accepted → started`)
exactly once before any effect, and `finished` together with the report and the result of it (`workers.host.endings`, or
`unbegun` where it never began). What waits, waits here: for its time, for somebody's approval (`parked`), for another
attempt, or for a place in the pool after a restart.
"""

from collections.abc import Iterable

from fleet.clock import BrokerClock
from fleet.contracts.reports import Kind
from workers.host import claim
from workers.host.claim import Claim
from workers.host.outbox import Outbox
from workers.host.store import Store
from workers.host.unbegun import Unbegun


class Journal:
    """The journal of one worker session. Thread-safe."""

    def __init__(self, store: Store, outbox: Outbox, *, unbegun: Unbegun, clock: BrokerClock) -> None:
        self._store = store
        self._outbox = outbox
        self._unbegun = unbegun
        self._clock = clock
        self.sync = store.sync

    @property
    def id(self) -> str:
        """What identifies this journal file."""
        return self._store.recall("id") or ""

    def claim(self, run_id: str, *, durable: bool, held: bool = False) -> Claim | None:
        """Claim the accepted attempt at a run; None where there is nothing to claim. One caller gets it, ever.

        With `durable` the claim survives power loss when this returns, for runs that must not begin twice. `held` says
        that the run will not begin before its message was removed (`workers.host.handover`): until `handed_over`, the
        claim can be taken back. A run whose time is over is finished as expired instead. Later attempts at it do not
        expire, but for those that begin by an approval: that is for a time, whatever has begun in it.
        """
        now = self._clock.now()
        with self._store.transaction(durable=durable) as transaction:
            row = transaction.execute(
                "UPDATE journal SET state = 'started', started_at = ?, handed_over = ? WHERE run_id = ? "  # noqa: S608
                "AND state = 'accepted' "
                "AND ((attempt > 1 AND approval IS NULL) OR not_after IS NULL OR not_after >= ?) "
                f"RETURNING {claim.COLUMNS}",
                (now, int(not held), run_id, now),
            ).fetchone()
            if row is not None:
                self._outbox.add(transaction, Kind.RUN_STARTED, run_id=run_id, attempt=row[1])
            late = transaction.execute(
                "SELECT not_after, submitted_at, attempt FROM journal WHERE run_id = ? AND state = 'accepted'",
                (run_id,),
            ).fetchone()
        if late is not None:
            self._unbegun.expire(run_id, expired_at=late[0], submitted_at=late[1], attempt=late[2])
        return None if row is None else claim.of_row(row)

    def unclaim(self, run_id: str, *, certain: bool = False) -> bool:
        """Take a claim back whose message was waited for and is still there: its effect never began.

        Return whether that is so. A copy of the message says nothing about a run that began without waiting, or after
        the first one was removed. With `certain`, somebody saw that the effect never began.
        """
        with self._store.transaction() as transaction:
            return bool(
                transaction.execute(
                    "UPDATE journal SET state = 'accepted', started_at = NULL WHERE run_id = ? AND state = 'started' "
                    "AND (handed_over = 0 OR ?)",
                    (run_id, certain),
                ).rowcount
            )

    def disown(self, run_id: str) -> None:
        """Forget a run that has not begun, because its message is in the broker, for this session or a newer one."""
        with self._store.transaction(durable=True) as transaction:
            transaction.execute("DELETE FROM journal WHERE run_id = ? AND state != 'finished'", (run_id,))

    def handed_over(self, run_ids: Iterable[str]) -> None:
        """Remember that the messages of these runs have left the inbox."""
        with self._store.transaction() as transaction:
            transaction.executemany("UPDATE journal SET handed_over = 1 WHERE run_id = ?", [(run,) for run in run_ids])

    def due(self, limit: int, *, besides: Iterable[str] = ()) -> list[tuple[str, str]]:
        """Return accepted runs whose time has come, with their queue items, those that wait longest first."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT run_id, item FROM journal WHERE state = 'accepted' AND due_at <= ? ORDER BY due_at, rowid "
                "LIMIT ?",
                (self._clock.now(), limit + len(taken := frozenset(besides))),
            ).fetchall()
        return [(run_id, item) for run_id, item in rows if run_id not in taken][:limit]

    def waiting(self, *, unsettled: bool = False) -> list[tuple[str, str]]:
        """Return runs that never began and are due, with their queue items, the newest first; none that somebody has
        approved, which counts for this journal alone.

        With `unsettled`, those (due or not) of which it is not certain that their messages have left the inbox; a run
        that was handed back before is one of them.
        """
        which = (
            "handed_over = 0"
            if unsettled
            else "state = 'accepted' AND attempt = 1 AND approval IS NULL AND due_at <= ?"
        )
        with self._store.transaction() as transaction:
            return transaction.execute(
                f"SELECT run_id, item FROM journal WHERE state IN ('accepted', 'awaiting') AND {which} "  # noqa: S608 - ours
                "ORDER BY accepted_at DESC, rowid DESC",
                () if unsettled else (self._clock.now(),),
            ).fetchall()

    def interrupted(self) -> list[Claim]:
        """Return runs that have begun and not finished, the oldest first."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                f"SELECT {claim.COLUMNS} FROM journal WHERE state = 'started' ORDER BY started_at"  # noqa: S608 - ours
            ).fetchall()
        return [claim.of_row(row) for row in rows]

    def begun(self, run_id: str) -> Claim:
        """Return the claim of a run that is carried out; raises LookupError for any other."""
        with self._store.transaction() as transaction:
            row = transaction.execute(
                f"SELECT {claim.COLUMNS} FROM journal WHERE run_id = ? AND state = 'started'",  # noqa: S608 - ours
                (run_id,),
            ).fetchone()
        if row is None:
            raise LookupError(run_id)
        return claim.of_row(row)

    def pushed_by(self, run_id: str) -> str | None:
        """Return the principal who pushed a run; None where it is not known."""
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "SELECT envelope FROM journal WHERE run_id = ? AND envelope != '' LIMIT 1", (run_id,)
            ).fetchone()
        return claim.read_envelope(row[0]).submitted_by if row else None

    def message(self, run_id: str) -> tuple[str, str] | None:
        """Return the queue item of a run that is carried out, and the approval of it, empty where it needed none; None
        for any other."""
        with self._store.transaction() as transaction:
            row = transaction.execute(
                "SELECT item, coalesce(approval, '') FROM journal WHERE run_id = ? AND state = 'started'", (run_id,)
            ).fetchone()
        return (row[0], row[1]) if row else None

    def unfinished(self, limit: int) -> list[str] | None:
        """Return the ids of all runs that have not ended; None where they are more than `limit`."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT DISTINCT run_id FROM journal WHERE state != 'finished' LIMIT ?", (limit + 1,)
            ).fetchall()
        return None if len(rows) > limit else [run_id for (run_id,) in rows]

    def recovering(self) -> int:
        """Return how many runs were taken up after a crash and have not ended since."""
        with self._store.transaction() as transaction:
            (count,) = transaction.execute(
                "SELECT count(*) FROM journal WHERE state != 'finished' AND recovered = 1"
            ).fetchone()
        return int(count)

    def unfinished_by_contract(self) -> dict[tuple[str, str], tuple[int, float]]:
        """Return how many runs have not ended, and when the first was accepted, by contract and state."""
        with self._store.transaction() as transaction:
            rows = transaction.execute(
                "SELECT task, state, count(*), min(accepted_at) FROM journal WHERE state != 'finished' GROUP BY 1, 2"
            ).fetchall()
        return {(task, state): (count, since) for task, state, count, since in rows}
