"""The host worker: one Celery worker on one queue, with a journal, an outbox and a beat of its own."""
