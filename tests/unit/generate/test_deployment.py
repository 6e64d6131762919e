"""What is to be generated is checked before anything is made of it, and what is wrong is named."""

from typing import Any

import pytest

from fleet import errors
from fleet.generate import Deployment, Kind


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"role": "server"}, "role"),
        ({"registry_url": "rediss://:secret-word@broker.example:6379/0"}, "registry URL"),
        ({"registry_url": "rediss://control@broker.example:6379/0"}, "registry URL"),
        ({"registry_url": "redis://broker.example:6379/0"}, "registry URL"),
        ({"registry_url": "https://broker.example"}, "registry URL"),
        ({"registry_url": "rediss://broker.example:6379/0\nUser=root"}, "registry URL"),
        ({"registry_url": "rediss://broker.example:6379/0?ssl_cert_reqs=none"}, "registry URL"),
        ({"registry_url": ""}, "registry URL"),
        ({"host_id": "Edge 7"}, "host id"),
        ({"host_id": "edge-7\n"}, "host id"),
        ({"executable": "fleet"}, "executable"),
        ({"executable": "/opt/fleet\nUser=root"}, "executable"),
        ({"executable": "/opt/it's/fleet"}, "executable"),
        ({"executable": "/opt/\\x41/fleet"}, "executable"),
        ({"image": "Fleet"}, "image"),
        ({"image": "fleet host"}, "image"),
        ({"image": "$(id)"}, "image"),
    ],
)
def test_a_wrong_value_is_named_and_a_password_is_not_shown(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        Deployment.of(**{"role": "host", **wrong})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert "secret-word" not in str(caught.value)


def test_a_url_without_registry_is_checked_all_the_same_and_not_kept() -> None:
    kept = Deployment.of(role="host", registry_url="rediss://broker.example:6379/0", registry=False)
    assert (kept.broker_url, kept.listed) == (None, False)
    with pytest.raises(errors.InvalidValue):
        Deployment.of(role="host", registry_url="rediss://:word@broker.example:6379/0", registry=False)


def test_the_control_plane_reaches_the_broker_as_its_own_user() -> None:
    url = "rediss://[fd00::7]:6380"
    assert Deployment.of(role="host", registry_url=url).broker_url == "rediss://[fd00::7]:6380/0"
    assert Deployment.of(role="control", registry_url=url).broker_url == "rediss://control@[fd00::7]:6380/0"


@pytest.mark.parametrize("name", ["fleet-host", "shop/fleet_host:1.0", "registry.example:5000/a/b--c:v1"])
def test_names_of_images_as_people_give_them(name: str) -> None:
    assert Deployment.of(role="host", image=name).image == name


def test_a_kind_brings_along_what_it_needs() -> None:
    assert Kind.read("requirements") == {Kind.REQUIREMENTS}
    assert Kind.read(["dockerfile"]) == {Kind.DOCKERFILE, Kind.REQUIREMENTS}
    assert Kind.read("compose") == {Kind.COMPOSE, Kind.DOCKERFILE, Kind.REQUIREMENTS}
    assert Kind.read("all") == set(Kind)


@pytest.mark.parametrize(("words", "said"), [(["compos"], "did you mean 'compose'?"), ([], "is empty")])
def test_a_kind_that_is_none(words: list[str], said: str) -> None:
    with pytest.raises(errors.InvalidValue, match=said.replace("?", r"\?")):
        Kind.read(words)
