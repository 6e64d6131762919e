"""The schema's versions (Alembic). `fleet.db.migrate` runs them; a version, once released, is never changed."""
