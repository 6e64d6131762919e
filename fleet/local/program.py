"""Program: how Fleet starts itself once more, as another of its processes."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from fleet import environment as fleet_environment
from fleet import services


def argv(*words: str) -> list[str]:
    """Return the command line of `fleet …` by this interpreter."""
    # -P: a file `redis.py` in the user's directory is not the library
    return [sys.executable, "-P", "-m", "fleet", *words]


def environment(
    variables: Mapping[str, str], *, config: Path | None, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return its environment: this one's unless another is given, the settings file that was named, and some
    variables."""
    ours = fleet_environment.inherited() if inherited is None else inherited
    variables = {"PYTHONUNBUFFERED": "1", **variables}
    if config:
        variables["FLEET_CONFIG"] = str(config.absolute())
    if services.is_checkout():
        path = ours.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join([str(services.folder()), *([path] if path else [])])
    return {**ours, **variables}
