"""Alembic's environment: runs the versions in the transaction that `fleet.db.migrate` holds."""

from alembic import context

from fleet import db, models

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.Host.metadata,
    version_table=db.VERSION_TABLE,
    # SQLite has transactional DDL as long as the driver begins no transactions of its own (see db._prepare_sqlite)
    transactional_ddl=True,
)
context.run_migrations()
