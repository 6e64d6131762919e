"""Real services for tests, each started or made for the tests alone and removed afterwards."""
