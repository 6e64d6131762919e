"""The fleet's policy, approvals, shell sessions, and what principals may approve."""

import sqlalchemy as sa
from alembic import op

from fleet.models.columns import Json

revision = "0005"
down_revision = "0004"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "policy_version",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("set_at", MOMENT, nullable=False),
        sa.Column("set_by", sa.String, nullable=False),
    )
    op.create_table(
        "approval",
        sa.Column("run_id", sa.String(100), sa.ForeignKey("run.id"), primary_key=True),
        sa.Column("host_id", sa.String(63), nullable=False),
        sa.Column("principal", sa.String(63), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("risk", sa.String(16), nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("approve_before", MOMENT, nullable=False),
        sa.Column("run_before", MOMENT),
        sa.Column("decided_by", sa.String(63)),
        sa.Column("decided_at", MOMENT),
        sa.Column("reason", sa.String, nullable=False),
    )
    for column in ("host_id", "principal", "state", "asked_at"):
        op.create_index(f"ix_approval_{column}", "approval", [column])
    op.create_table(
        "shell_session",
        sa.Column("run_id", sa.String(100), primary_key=True),
        sa.Column("host_id", sa.String(63), nullable=False),
        sa.Column("principal", sa.String(63), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("risk", sa.String(16), nullable=False),
        sa.Column("argv", Json, nullable=False),
        sa.Column("cwd", sa.String),
        sa.Column("run_as", Json),
        sa.Column("decision", sa.String(8), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("policy", sa.Integer, nullable=False),
        sa.Column("approved_by", sa.String(63)),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("duration_seconds", sa.Float),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("earlier", Json, nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("exit_code", sa.Integer),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("stdout", sa.String, nullable=False),
        sa.Column("stderr", sa.String, nullable=False),
        sa.Column("stdout_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("stderr_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("stdout_sha256", sa.String(64), nullable=False),
        sa.Column("stderr_sha256", sa.String(64), nullable=False),
        sa.Column("truncated", sa.Boolean, nullable=False),
    )
    for column in ("host_id", "principal", "asked_at"):
        op.create_index(f"ix_shell_session_{column}", "shell_session", [column])
    op.add_column("principal", sa.Column("approves", Json, nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("principal", "approves")
    op.drop_table("shell_session")
    op.drop_table("approval")
    op.drop_table("policy_version")
