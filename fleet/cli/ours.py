"""Ours: the exit code of commands that pass on a program's own, where the trouble is Fleet's."""

from collections.abc import Iterator
from contextlib import contextmanager

from fleet import errors

#: What `docker run` exits with where the trouble is not the container's.
OURS = 125


@contextmanager
def ours() -> Iterator[None]:
    """Have Fleet's own troubles exit with a code that is no program's; what was written wrong stays 2."""
    try:
        yield
    except errors.UsageError:
        raise
    except errors.FleetError as exc:
        exc.exit_code = OURS
        raise
