"""The `fleet` command: the table of commands, and the one place where an error becomes a line and an exit code."""

import gc
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from fleet.cli import failures, streams
from fleet.cli.grammar import Entry, LazyGroup, global_options

_RUN, _HOSTS, _TASKS, _LOOK = "Run Fleet", "Hosts", "Tasks", "Look after it"

#: Python 3.11's own number is 700. Cycles of at most that many objects wait for the collector, a few megabytes.
_OBJECTS_BETWEEN_COLLECTIONS = 20_000
#: Every command, in the order of the help. A command's own help begins with its summary.
ENTRIES = {
    "up": Entry(
        "fleet.cli.up:command", "Run everything on this machine: broker, control plane, API, Flower, and a host.", _RUN
    ),
    "worker": Entry("fleet.cli.worker:group", "Run the worker of a host.", _RUN),
    "control": Entry("fleet.cli.control:command", "Run a control worker.", _RUN),
    "api": Entry("fleet.cli.api:command", "Run the REST API.", _RUN),
    "flower": Entry("fleet.cli.flower:command", "Run Flower, the web view of workers and tasks.", _RUN),
    "enroll": Entry("fleet.cli.enroll:command", "Make this machine a host, by a token.", _HOSTS),
    "token": Entry("fleet.cli.token:group", "Make, list and revoke enrollment tokens.", _HOSTS),
    "host": Entry("fleet.cli.host:group", "List, show, label, pause, drain, rotate and revoke hosts.", _HOSTS),
    "ps": Entry("fleet.cli.ps:command", "List the containers of the hosts.", _HOSTS),
    "run": Entry(
        "fleet.cli.container.running:command", "Run a container on one host or on many, and print what it says.", _HOSTS
    ),
    "container": Entry("fleet.cli.container:group", "Make, start, stop, follow and remove containers.", _HOSTS),
    "image": Entry("fleet.cli.image:group", "Pull, list and remove images.", _HOSTS),
    "exec": Entry("fleet.cli.exec:command", "Run a program on hosts: an argument list, never a shell.", _TASKS),
    "file": Entry("fleet.cli.file:group", "List, read and write files of hosts, as the fleet's policy grants.", _HOSTS),
    "push-task": Entry("fleet.cli.push:command", "Push a task to one host, several, or all.", _TASKS),
    "task": Entry("fleet.cli.task:group", "List, show, follow, wait for, cancel and retry tasks.", _TASKS),
    "approval": Entry(
        "fleet.cli.approval:group", "List, show, approve and deny runs that wait for somebody else.", _TASKS
    ),
    "principal": Entry("fleet.cli.principal:group", "Make, list, change and revoke those who push.", _LOOK),
    "policy": Entry("fleet.cli.policy:group", "Check, apply, show and explain the fleet's policy.", _LOOK),
    "secret": Entry("fleet.cli.secret:group", "Keep, list and remove secrets of containers.", _LOOK),
    "key": Entry("fleet.cli.key:group", "List and change the fleet's signing keys.", _LOOK),
    "broker": Entry("fleet.cli.broker:group", "Prepare a broker that is not Fleet's own.", _LOOK),
    "audit": Entry("fleet.cli.audit:group", "Read the audit: who did what, on which host, when.", _LOOK),
    "health": Entry("fleet.cli.health:command", "Say whether a worker or the control plane is alive.", _LOOK),
    "generate": Entry("fleet.cli.generate:command", "Write files that run a host or the control plane.", _LOOK),
    "doctor": Entry("fleet.cli.doctor:command", "Check everything Fleet needs, and say what to do.", _LOOK),
    "completion": Entry("fleet.cli.completion:command", "Print the completion script of a shell.", _LOOK),
}

_EPILOG = """\b
Exit codes:
    0  ok
    1  the task failed or was cancelled, or nobody knows what became of it
    2  usage: something is written wrong
    3  partly failed (several hosts)
    4  refused, by the host, the control plane or you
    5  not reachable: host offline, paused or draining, its queue full, task expired, broker or database down
  124  the time limit (--timeout) is over; the task goes on
  130  interrupted

Settings come from flags, then FLEET_* (FLEET_*_FILE for secrets), then the settings file, then defaults.
"""


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value and not ctx.resilient_parsing:
        from fleet import version

        click.echo(f"fleet {version.current()}")
        ctx.exit()


root = LazyGroup(
    "fleet",
    entries=ENTRIES,
    examples=(
        "fleet up",
        "fleet host list",
        "fleet push-task fleet.containers.restart --host edge-7 --arg container=web --wait",
        "fleet exec -l env=prod -- uptime",
    ),
    help="Fleet runs work on many Docker hosts through one message broker.",
    epilog=_EPILOG,
    no_args_is_help=True,
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and exit with its code."""
    # A start makes some hundred thousand objects that stay: no garbage, but looked through for it again and again.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    streams.prepare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    root._main_shell_completion({}, "fleet")  # noqa: SLF001 - what click's own main() does first
    context: click.Context | None = None
    code = 0
    failed: BaseException | None = None
    try:
        with root.make_context("fleet", given) as context:
            root.invoke(context)
    except BaseException as exc:  # noqa: BLE001 - the last frame of the program: every error becomes a line here
        failed = exc
    # An output that could not be written to the end is the cause of the trouble, or worse than it.
    failed = streams.flush() or failed
    if isinstance(failed, BrokenPipeError):
        # Whoever read our output has gone (`fleet audit list | head`): nothing that anybody needs to hear of.
        code = failures.BROKEN_PIPE
    elif failed is not None:
        code = failures.report(failed, context)
    gc.freeze()  # or the interpreter looks through all of it at its end
    sys.exit(code)
