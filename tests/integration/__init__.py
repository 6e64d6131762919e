"""Tests of one part on real services."""
