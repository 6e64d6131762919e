"""Tests: sentences about behaviour, on the real components."""
