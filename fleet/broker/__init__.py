"""The broker: connections to Redis or Valkey, the kombu channel that sends, and the backend that reads results."""
