"""Keys of the fleet, principals, and what identifies hosts."""

import sqlalchemy as sa
from alembic import op

from fleet.models.columns import Json

revision = "0003"
down_revision = "0002"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "fleet_key",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("public", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("retired_at", MOMENT),
    )
    op.create_table(
        "principal",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("selectors", Json, nullable=False),
        sa.Column("keys", Json, nullable=False),
        sa.Column("broker_hashes", Json, nullable=False),
        sa.Column("serial", sa.Integer, nullable=False),
        sa.Column("least_serial", sa.Integer, nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("overlap_until", MOMENT),
        sa.Column("revoked_at", MOMENT),
    )
    op.add_column("host", sa.Column("availability_at", MOMENT))
    op.add_column("host", sa.Column("drain_deadline", MOMENT))
    op.add_column("host", sa.Column("keys", Json, nullable=False, server_default="[]"))
    op.add_column("host", sa.Column("broker_hashes", Json, nullable=False, server_default="[]"))
    op.add_column("host", sa.Column("credential", sa.String))
    op.add_column("host", sa.Column("suspect", sa.String(200)))
    op.add_column("host", sa.Column("token_id", sa.String(32)))
    op.add_column("enrollment_token", sa.Column("broker_hash", sa.String(64)))


def downgrade() -> None:
    op.drop_column("enrollment_token", "broker_hash")
    for column in ("token_id", "suspect", "credential", "broker_hashes", "keys", "drain_deadline", "availability_at"):
        op.drop_column("host", column)
    op.drop_table("principal")
    op.drop_table("fleet_key")
