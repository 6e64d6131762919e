"""Attempts, time limits, cancelling and sending again of runs; availability and journal of hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("run", sa.Column("attempt", sa.Integer, nullable=False, server_default="1"))
    op.add_column("run", sa.Column("not_before", MOMENT))
    op.add_column("run", sa.Column("limit_seconds", sa.Float))
    op.add_column("run", sa.Column("max_retries", sa.Integer, nullable=False, server_default="0"))
    op.add_column("run", sa.Column("retry_of", sa.String(100)))
    op.add_column("run", sa.Column("cancel_requested_at", MOMENT))
    op.add_column("run", sa.Column("cancel_requested_by", sa.String(63)))
    op.add_column("run", sa.Column("sent_again_at", MOMENT))
    op.add_column("host", sa.Column("availability", sa.String(16), nullable=False, server_default="active"))
    op.add_column("host", sa.Column("journal", sa.String(36)))


def downgrade() -> None:
    for column in ("journal", "availability"):
        op.drop_column("host", column)
    for column in (
        "sent_again_at",
        "cancel_requested_by",
        "cancel_requested_at",
        "retry_of",
        "max_retries",
        "limit_seconds",
        "not_before",
        "attempt",
    ):
        op.drop_column("run", column)
