"""The control worker: enrollment, report ingestion, presence; the one writer of the database."""
