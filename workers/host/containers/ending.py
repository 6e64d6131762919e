"""Ending: the end of a run that is carried out, where somebody has asked for it."""

from fleet import errors
from workers.host.streams import StreamedRun


def stop_if_ended(run: StreamedRun | None) -> None:
    """Raise `errors.TaskCancelled` in the function of a run that is to end; None is one that nobody can end."""
    if run is not None and run.ended():
        raise errors.TaskCancelled("it was ended before it was done")
