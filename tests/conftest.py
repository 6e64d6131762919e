"""Fixtures of all tests come from the modules named here."""

pytest_plugins = (
    "tests.services.broker",
    "tests.services.browser",
    "tests.services.database",
    "tests.services.wheels",
)
