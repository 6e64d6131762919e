"""Given: what routes get of the process beside who calls (`access`)."""

from typing import Annotated

from fastapi import Depends, Request

from fleet.api.news import News
from fleet.api.plane import Plane


def _plane(request: Request) -> Plane:
    found: Plane = request.app.state.plane
    return found


def _news(request: Request) -> News:
    found: News = request.app.state.news
    return found


ThePlane = Annotated[Plane, Depends(_plane)]
TheNews = Annotated[News, Depends(_news)]
