"""Hosts and their containers, enrollment tokens, runs and attempts, the audit, and how far reports were taken in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
#: SQLite's rowid is an INTEGER of 64 bits already, and only that spelling makes it the key.
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

REFUSE_CHANGES_ON_SQLITE = (
    (
        "CREATE TRIGGER audit_event_refuse_update BEFORE UPDATE ON audit_event"
        " BEGIN SELECT RAISE(ABORT, 'audit_event is append-only'); END"
    ),
    (
        "CREATE TRIGGER audit_event_refuse_delete BEFORE DELETE ON audit_event"
        " BEGIN SELECT RAISE(ABORT, 'audit_event is append-only'); END"
    ),
    # INSERT OR REPLACE deletes the old row without a word to the trigger above
    (
        "CREATE TRIGGER audit_event_refuse_replace BEFORE INSERT ON audit_event"
        " WHEN EXISTS (SELECT 1 FROM audit_event WHERE id = NEW.id)"
        " BEGIN SELECT RAISE(ABORT, 'audit_event is append-only'); END"
    ),
)
REFUSE_CHANGES_ON_POSTGRESQL = (
    (
        "CREATE FUNCTION audit_event_refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'audit_event is append-only' USING ERRCODE = 'restrict_violation'; END $$"
    ),
    (
        "CREATE TRIGGER audit_event_refuse_change BEFORE UPDATE OR DELETE ON audit_event"
        " FOR EACH ROW EXECUTE FUNCTION audit_event_refuse()"
    ),
    (
        "CREATE TRIGGER audit_event_refuse_truncate BEFORE TRUNCATE ON audit_event"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_event_refuse()"
    ),
)


def upgrade() -> None:
    _hosts()
    _runs()
    _audit()
    op.create_table(
        "report_cursor",
        sa.Column("sender", sa.String(80), primary_key=True),
        sa.Column("epoch", BIG, primary_key=True, autoincrement=False),
        sa.Column("seq", BIG, nullable=False),
    )


def _hosts() -> None:
    op.create_table(
        "host",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("membership", sa.String(16), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("facts", JSON, nullable=False),
        sa.Column("enrolled_at", MOMENT, nullable=False),
        sa.Column("enrolled_by", sa.String(36)),
        sa.Column("registered_at", MOMENT),
        sa.Column("last_seen_at", MOMENT),
        sa.Column("signed_off_at", MOMENT),
        sa.Column("inventory_at", MOMENT),
    )
    op.create_table(
        "container",
        sa.Column("host_id", sa.String(63), sa.ForeignKey("host.id"), primary_key=True),
        sa.Column("docker_id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("image", sa.String(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("health", sa.String(16)),
        sa.Column("ports", JSON, nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("started", MOMENT),
    )
    op.create_index("ix_container_name", "container", ["name"])
    op.create_table(
        "enrollment_token",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("host_id", sa.String(63)),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("revoked_at", MOMENT),
    )


def _runs() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("host_id", sa.String(63), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("arguments", JSON, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("meta", JSON, nullable=False),
        sa.Column("submitted_by", sa.String(), nullable=False),
        sa.Column("submitted_at", MOMENT, nullable=False),
        sa.Column("assigned_at", MOMENT),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("not_after", MOMENT),
        sa.Column("batch", sa.String(36)),
        sa.Column("progress", JSON),
        sa.Column("reply", JSON),
        sa.Column("error", JSON),
        sa.Column("message", sa.String()),
    )
    for column in ("host_id", "task", "state", "submitted_at", "batch"):
        op.create_index(f"ix_run_{column}", "run", [column])
    op.create_table(
        "attempt",
        sa.Column("run_id", sa.String(100), sa.ForeignKey("run.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("duration_seconds", sa.Float()),
    )


def _audit() -> None:
    op.create_table(
        "audit_event",
        sa.Column("id", BIG, primary_key=True, autoincrement=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("occurred_at", MOMENT, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("host_id", sa.String(63)),
        sa.Column("run_id", sa.String(100)),
        sa.Column("epoch", BIG, nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    for column in ("recorded_at", "event", "actor", "host_id", "run_id"):
        op.create_index(f"ix_audit_event_{column}", "audit_event", [column])
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in REFUSE_CHANGES_ON_SQLITE if on_sqlite else REFUSE_CHANGES_ON_POSTGRESQL:
        op.execute(sa.text(statement))
