"""Names of images: the grammar of the registries, and nothing that leads astray in a path of the Engine's API."""

import pytest
from pydantic import ValidationError

from fleet.contracts.container_spec import ContainerSpec
from fleet.contracts.images import PullImage, RemoveImage

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    "name",
    [
        "busybox",
        "busybox:1.36",
        "busybox:latest",
        "shop/web",
        "shop/web__api.v2-beta---x/y_z",
        "registry.example/shop/web:1.2",
        "Registry.Example:5000/shop/web",
        "localhost/web",
        "localhost:5000/web:_x",
        "10.0.0.7:5000/web",
        "[::1]:5000/x",
        "[fd00::7]/shop/web:1",
        f"busybox@{DIGEST}",
        f"registry.example:443/shop/web:1.2@{DIGEST}",
        DIGEST,
        "9a4cde0e7f5f",
        "x:" + "t" * 128,
    ],
)
def test_what_names_an_image_is_taken_everywhere(name: str) -> None:
    assert RemoveImage(image=name).image == name
    assert PullImage(image=name).image == name
    assert ContainerSpec(image=name).image == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "x/..",
        "x/.",
        "x/../../containers/postgres",
        "x/./y",
        "x//y",
        "/x",
        "x/",
        "a/.../b",
        "a/..b",
        "a/b..",
        "a..b/c",
        "..:1",
        "x:..",
        "x:1/../../containers/postgres",
        "x:a/b",
        "x:",
        "x:1:2",
        "x@",
        "x@sha256:12",
        f"x@{DIGEST}/../../containers/postgres",
        f"x@{DIGEST}@{DIGEST}",
        "x%2f..%2f..",
        "%2e%2e/containers/postgres",
        "x?force=1",
        "x#y",
        "x y",
        "x\n",
        "x\x00",
        "x\\..\\y",
        "X",
        "shop/Web",
        "-x",
        "x-",
        "x/_y",
        "[::1]",
        "[::1]:5000",
        "[..]:5000/x",
        "[::1/x",
        "[::1]:5000/../x",
        "registry.example:port/x",
        "ärger",
        "١",
        "x:" + "t" * 129,
        "x" * 513,
    ],
)
def test_what_names_none_is_refused_everywhere(name: str) -> None:
    for contract in (RemoveImage, PullImage, ContainerSpec):
        with pytest.raises(ValidationError, match="is no image") as caught:
            contract(image=name)
        assert [each["loc"] for each in caught.value.errors()] == [("image",)]
