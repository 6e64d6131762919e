"""Cursors: up to which number the reports of each sender's sessions are taken in.

They are written in the transaction of the reports, so a batch that is read again changes nothing. A principal has one
too, which says no more than that its list exists.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Table
from sqlmodel import Session, col, select

from fleet import bulk, inventory
from fleet.models import ReportCursor

_CURSORS: Table = ReportCursor.__table__  # type: ignore[attr-defined]


def load(session: Session, senders: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return the newest number taken in by (sender, session)."""
    rows = session.exec(select(ReportCursor).where(col(ReportCursor.sender).in_(senders)))
    return {(row.sender, row.epoch): row.seq for row in rows}


def store(session: Session, cursors: Mapping[tuple[str, int], int]) -> None:
    """Write down the newest numbers, within the transaction of their reports."""
    rows = [{"sender": sender, "epoch": epoch, "seq": seq} for (sender, epoch), seq in cursors.items()]
    bulk.insert(
        session,
        _CURSORS,
        rows,
        finish=lambda made: made.on_conflict_do_update(
            index_elements=["sender", "epoch"], set_={"seq": made.excluded.seq}
        ),
    )


def known_senders(session: Session) -> set[str]:
    """Return everybody whose list may hold something: all hosts, and whoever has reported before."""
    return {host.id for host in inventory.hosts(session)} | set(session.exec(select(col(ReportCursor.sender))).all())
