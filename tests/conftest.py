"""Fixtures of all tests come from the modules named here, those that others import first."""

pytest_plugins = (
    "tests.services.availability",
    "tests.services.waiting",
    "tests.services.database",
    "tests.services.broker",
    "tests.services.browser",
    "tests.services.docker",
    "tests.services.wheels",
    "tests.services.system",
)
