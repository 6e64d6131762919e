"""Routes: one module a noun, each of which says what it needs of the caller (`fleet.api.access`)."""
