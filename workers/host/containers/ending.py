"""Ending: whether somebody has asked for the end of a run that is carried out."""

from typing import Any

from fleet import errors


def ended(run: Any) -> bool:
    """Say whether a run is over, by a cancel or a time limit, while its function is still at work."""
    says = getattr(run, "ended", None)
    return bool(says()) if callable(says) else False


def stop_if_ended(run: Any) -> None:
    """Raise `errors.TaskCancelled` in the function of a run that is over."""
    if ended(run):
        raise errors.TaskCancelled("it was ended before it was done")
