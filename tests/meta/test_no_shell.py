"""No shell anywhere, and no process but where one is meant: read off the syntax trees of all that Fleet runs.

Names are followed through imports, aliases, assignments, defaults and `getattr`. What nobody can read off the source (a
module or an attribute by a computed name, `eval`) is found as such. This is no wall against somebody who wants to hide
something; it is one against doing it without a thought.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("fleet", "workers", "beat", "config")

#: (file, what is found there) → why that is right. A file that executes programs is to be named for that.
ALLOWED = {
    ("fleet/local/process.py", "subprocess"): "the one place of the library that starts processes",
    ("workers/host/process.py", "subprocess"): "the one place of the workers that starts processes",
    ("workers/host/zygote.py", "os.fork"): "forks the supervisors of runs from a process with one thread",
    ("workers/host/supervisor.py", "os.fork"): "forks the child that carries out a contract's function",
    ("fleet/services.py", "import of a computed name"): "imports a module of workers or beat, named in our own code",
    ("fleet/cli/grammar.py", "import of a computed name"): "imports a command's module, named in the table of commands",
    ("workers/host/tasks/packages.py", "import of a computed name"): "imports the function that a contract names",
    ("fleet/cli/up.py", "shell="): "hands `--no-shell` on to the setting of that name",
    ("fleet/powers.py", "shell="): "the field of Powers that says the same",
    ("workers/host/programs.py", "os.execve"): "becomes the program that the policy lists, by its descriptor",
    ("workers/host/kernel.py", "C's syscall"): "openat2, for which there is no name in C's library",
    ("workers/host/facts.py", "shell="): "the field of Facts that says whether commands are switched off",
}

#: Modules of which nothing may be used.
MODULES = (
    *("subprocess", "_posixsubprocess", "asyncio.subprocess", "multiprocessing", "billiard", "pty", "commands"),
    *("popen2", "posix", "pexpect", "sh", "cffi", "pydoc", "distutils.spawn"),
)
#: Names of modules that have other uses. `click` starts editors, pagers and browsers, the first by a shell.
NAMES = (
    *("os.system", "os.popen*", "os.exec*", "os.spawn*", "os.posix_spawn*", "os.fork*", "os.startfile"),
    *("asyncio.create_subprocess_*", "concurrent.futures.ProcessPoolExecutor", "psutil.Popen"),
    *("click.edit", "click.launch", "click.echo_via_pager", "builtins.eval", "builtins.exec", "builtins.compile"),
)
#: Modules of which no name may be computed.
LOOKED_UP = ("os", "asyncio", "builtins", "ctypes")
#: Methods of event loops, whatever the variable is called.
METHODS = ("subprocess_exec", "subprocess_shell")
#: Functions of C that are not called past Python, in files that use ctypes.
OF_C = ("system", "popen", "fork", "vfork", "clone", "clone3", "syscall", "exec[lv]*", "fexecve", "posix_spawn*")

IMPORTS = ("builtins.__import__", "importlib.import_module", "importlib.__import__")
BUILTINS = ("eval", "exec", "compile", "getattr", "vars", "__import__")


@dataclass
class Tree:
    """One file's tree, and what its names stand for."""

    tree: ast.AST
    names: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = list(ast.walk(self.tree))
        while True:  # an alias may be of an alias that stands further down
            before = sum(map(len, self.names.values()))
            for node in self.nodes:
                for name, meant in self.bindings(node):
                    self.names.setdefault(name, set()).update(meant)
            if before == sum(map(len, self.names.values())):
                break

    def bindings(self, node: ast.AST) -> Iterator[tuple[str, set[str]]]:
        """Yield the names that a node gives, with what each may stand for. Scopes are not told apart."""
        match node:
            case ast.Import(names=names):
                for each in names:
                    yield (
                        each.asname or each.name.partition(".")[0],
                        {each.name if each.asname else each.name.partition(".")[0]},
                    )
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for each in names:
                    yield each.asname or each.name, {f"{module}.{each.name}"}
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from self.assigned(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                yield from self.assigned(target, value)
            case ast.arguments():
                positional = [*node.posonlyargs, *node.args]
                defaults = zip(reversed(positional), reversed(node.defaults), strict=False)
                for argument, default in [*defaults, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]:
                    if default is not None:
                        yield argument.arg, self.meant(default)

    def assigned(self, target: ast.expr, value: ast.expr) -> Iterator[tuple[str, set[str]]]:
        match target, value:
            case ast.Name(id=name), _:
                yield name, self.meant(value)
            case ((ast.Tuple() | ast.List()), (ast.Tuple() | ast.List())):
                for each, part in zip(target.elts, value.elts, strict=False):
                    yield from self.assigned(each, part)

    def meant(self, node: ast.expr) -> set[str]:
        """Return the dotted names of modules and their contents that an expression may stand for."""
        match node.value if isinstance(node, ast.NamedExpr) else node:
            case ast.Name(id=name):
                return self.names.get(name) or ({f"builtins.{name}"} if name in BUILTINS else set())
            case ast.Attribute(value=value, attr=attr):
                return {f"{base}.{attr}" for base in self.meant(value)}
            case ast.IfExp(body=one, orelse=other) | ast.BoolOp(values=[one, other]):
                return self.meant(one) | self.meant(other)
            case ast.Subscript(value=value, slice=ast.Constant(value=str(name))):
                bases = self.meant(value)
                of_modules = {base.removesuffix(".__dict__") for base in bases if base.endswith(".__dict__")}
                return {f"{base}.{name}" for base in of_modules} | ({name} if "sys.modules" in bases else set())
            case ast.Call(func=func, args=args):
                return self.returned(func, args)
        return set()

    def returned(self, func: ast.expr, args: list[ast.expr]) -> set[str]:
        """Return the same of a call."""
        meant = self.meant(func)
        match args:
            case [ast.Constant(value=str(name)), *_] if meant & set(IMPORTS):
                return {name, name.partition(".")[0]}
            case [value, ast.Constant(value=str(name)), *_] if "builtins.getattr" in meant:
                return {f"{base}.{name}" for base in self.meant(value)}
            case [value] if "builtins.vars" in meant:
                return {f"{base}.__dict__" for base in self.meant(value)}
        return set()

    def is_getattr(self, func: ast.expr) -> bool:
        return "builtins.getattr" in self.meant(func)

    def uses_ctypes(self) -> bool:
        return any(name == "ctypes" or name.startswith("ctypes.") for found in self.names.values() for name in found)


def forbidden(name: str) -> str | None:
    """Return what is wrong with a dotted name, None where nothing is."""
    for module in MODULES:
        if name == module or name.startswith(f"{module}."):
            return module
    parts = name.split(".")
    return next((p for n in range(2, 4) if any(fnmatchcase(p := ".".join(parts[:n]), each) for each in NAMES)), None)


def found_at(node: ast.AST, tree: Tree) -> Iterator[str]:
    """Yield what is wrong with one node."""
    match node:
        case ast.Import(names=names):
            yield from filter(None, (forbidden(each.name) for each in names))
        case ast.ImportFrom(module=str(module), names=names, level=0):
            for each in names:
                whole = each.name == "*" and (module in LOOKED_UP)
                yield from filter(None, [f"{module}.*" if whole else forbidden(f"{module}.{each.name}")])
        case ast.expr():
            yield from filter(None, map(forbidden, tree.meant(node)))
    match node:
        case ast.Attribute(attr=attr) if attr in METHODS:
            yield f"loop.{attr}"
        case ast.Call(keywords=keywords, func=func, args=args):
            yield from found_in_call(keywords, func, args, tree)
        case ast.Attribute(value=ast.expr() as value, attr="__dict__") if tree.meant(value) & set(LOOKED_UP):
            yield "attribute of a computed name"
    if tree.uses_ctypes():
        match node:
            case ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
                called = name
            case ast.Call(func=func, args=[_, ast.Constant(value=str(name)), *_]) if tree.is_getattr(func):
                called = name
            case _:
                return
        if any(fnmatchcase(called, pattern) for pattern in OF_C):
            yield f"C's {called}"


def found_in_call(keywords: list[ast.keyword], func: ast.expr, args: list[ast.expr], tree: Tree) -> Iterator[str]:
    meant = tree.meant(func)
    for keyword in keywords:
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
            yield "shell="
        elif keyword.arg is None:
            named = isinstance(keyword.value, ast.Dict) and "shell" in {
                getattr(k, "value", None) for k in keyword.value.keys
            }
            starts = any(forbidden(name) == "subprocess" for name in meant)
            yield from ["shell="] if named or starts else []  # what is unpacked there may say anything
    if meant & set(IMPORTS) and not (args and isinstance(args[0], ast.Constant)):
        yield "import of a computed name"
    match args:
        case [value, name, *_] if tree.is_getattr(func) and not isinstance(name, ast.Constant):
            yield from ["attribute of a computed name"] if tree.meant(value) & set(LOOKED_UP) else []
        case [value] if "builtins.vars" in meant and tree.meant(value) & set(LOOKED_UP):
            yield "attribute of a computed name"


def look(source: str) -> list[tuple[int, str]]:
    """Return line and finding of everything that must not be."""
    tree = Tree(ast.parse(source))
    return sorted({(getattr(node, "lineno", 0), what) for node in tree.nodes for what in found_at(node, tree)})


def everything() -> Iterator[tuple[str, int, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, what in look(path.read_text(encoding="utf-8")):
                yield path.relative_to(ROOT).as_posix(), line, what


def test_there_is_no_shell_and_no_process_but_where_one_is_meant() -> None:
    found = [f"{path}:{line}: {what}" for path, line, what in everything() if (path, what) not in ALLOWED]
    assert found == []


def test_every_exception_is_still_one() -> None:
    assert set(ALLOWED) == {(path, what) for path, _, what in everything()} & set(ALLOWED)


def test_all_that_runs_is_looked_at() -> None:
    looked_at = {path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert len(looked_at) > 200
    assert {path for path, _ in ALLOWED} <= looked_at
    assert not list(ROOT.glob("*.py"))


BAD = {
    "import subprocess": "subprocess",
    "import subprocess as s": "subprocess",
    "def f():\n    from subprocess import run": "subprocess",
    "from subprocess import *": "subprocess",
    "if 0:\n    import subprocess": "subprocess",
    "import importlib\nimportlib.import_module('subprocess').run(['ls'])": "subprocess",
    "from importlib import import_module as i\ni('subprocess')": "subprocess",
    "__import__('subprocess').run(['ls'])": "subprocess",
    "import builtins\nbuiltins.__import__('subprocess')": "subprocess",
    "import sys\nsys.modules['subprocess'].run(['ls'])": "subprocess",
    "import importlib\nname = 'sub' + 'process'\nimportlib.import_module(name)": "import of a computed name",
    "__import__('sub' 'process')": "subprocess",
    "__import__(chr(115))": "import of a computed name",
    "run(['ls'], shell=True)": "shell=",
    "run(['ls'], shell=1)": "shell=",
    "run(['ls'], shell=wanted)": "shell=",
    "run(['ls'], shell=not False)": "shell=",
    "run(['ls'], **{'shell': True})": "shell=",
    "from subprocess import run\nrun(['ls'], **options)": "shell=",
    "import os\nos.system('ls')": "os.system",
    "import os as o\no.system('ls')": "os.system",
    "import os.path\nos.system('ls')": "os.system",
    "from os import system as s\ns('ls')": "os.system",
    "from os import *\nsystem('ls')": "os.*",
    "import os\nrun = os.system": "os.system",
    "import os\no = os\np = o\np.system('ls')": "os.system",
    "import os, sys\na, b = sys, os\nb.system('ls')": "os.system",
    "import os\nif (o := os):\n    o.system('ls')": "os.system",
    "import os\ndef f(o=os):\n    o.system('ls')": "os.system",
    "import os\ndef f(*, o=os):\n    o.system('ls')": "os.system",
    "import os\n(os if x else y).system('ls')": "os.system",
    "import os\ngetattr(os, 'system')('ls')": "os.system",
    "import os\ng = getattr\ng(os, 'system')('ls')": "os.system",
    "import os\ngetattr(os, 'sys' + 'tem')('ls')": "attribute of a computed name",
    "import os\nos.__dict__['system']('ls')": "os.system",
    "import os\nvars(os)['system']('ls')": "os.system",
    "import os\nos.__dict__[name]('ls')": "attribute of a computed name",
    "__import__('os').system('ls')": "os.system",
    "import sys\nsys.modules['os'].system('ls')": "os.system",
    "import os\nos.popen('ls')": "os.popen",
    "import os\nos.execv('/bin/ls', ['ls'])": "os.execv",
    "import os\nos.execlpe('ls')": "os.execlpe",
    "import os\nos.spawnvp(0, 'ls', [])": "os.spawnvp",
    "import os\nos.posix_spawn('/bin/ls', [], {})": "os.posix_spawn",
    "import os\nos.posix_spawnp('ls', [], {})": "os.posix_spawnp",
    "import os\nos.fork()": "os.fork",
    "import os\nos.forkpty()": "os.forkpty",
    "import posix\nposix.system('ls')": "posix",
    "import pty\npty.spawn('sh')": "pty",
    "import asyncio\nasyncio.create_subprocess_shell('ls')": "asyncio.create_subprocess_shell",
    "from asyncio import create_subprocess_exec": "asyncio.create_subprocess_exec",
    "import asyncio.subprocess": "asyncio.subprocess",
    "from asyncio import subprocess": "asyncio.subprocess",
    "loop.subprocess_shell(f, 'ls')": "loop.subprocess_shell",
    "import commands": "commands",
    "import popen2": "popen2",
    "from multiprocessing import Process": "multiprocessing",
    "from concurrent.futures import ProcessPoolExecutor": "concurrent.futures.ProcessPoolExecutor",
    "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()": "concurrent.futures.ProcessPoolExecutor",
    "import psutil\npsutil.Popen(['ls'])": "psutil.Popen",
    "import ctypes\nctypes.CDLL(None).system(b'ls')": "C's system",
    "from ctypes import CDLL\nlibc = CDLL(None)\nlibc.execve(a, b, c)": "C's execve",
    "import ctypes as c\nc.CDLL(None)['system'](b'ls')": "C's system",
    "import ctypes\ngetattr(ctypes.CDLL(None), 'popen')": "C's popen",
    "import ctypes\nctypes.CDLL(None).syscall(59)": "C's syscall",
    "import click\nclick.edit()": "click.edit",
    "eval('1')": "builtins.eval",
    "import builtins\nbuiltins.exec('1')": "builtins.exec",
}  # fmt: skip

GOOD = (
    "import os\nos.getpid(), os.waitpid(1, 0), os.kill(1, 9), os.killpg(1, 9)",
    "import re\nre.compile('x')",
    "client.eval('x'); session.exec(query); container.exec_run(['ls'])",
    "run(['ls'], shell=False)",
    "class Commands:\n    system = 1\n    def fork(self): ...\nCommands().fork()",
    "from fleet.local import process\nprocess.spawn(['ls'])",
    "import asyncio\nasyncio.create_task(x), asyncio.to_thread(f)",
    "import ctypes\nctypes.CDLL(None).prctl(1, 9)",
    "getattr(record, name); getattr(record, 'system')",
    "import importlib\nimportlib.import_module('fleet.settings')",
    "'import subprocess; os.system(1)'",
    "from fleet.contracts import shell\nshell.RUN",
    "from fleet.contracts.shell import RUN",
    "import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor()",
)


@pytest.mark.parametrize(("source", "what"), BAD.items(), ids=range(len(BAD)))
def test_it_is_found(source: str, what: str) -> None:
    assert what in {what for _, what in look(source)}


@pytest.mark.parametrize("source", GOOD, ids=range(len(GOOD)))
def test_what_is_harmless_is_not_found(source: str) -> None:
    assert look(source) == []


def test_a_finding_says_where_it_is() -> None:
    assert look("import os\n\n\nos.system('ls')\n") == [(4, "os.system")]
