"""`fleet up`: everything on this machine."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli import invocation, render
from fleet.cli.grammar import Command
from fleet.cli.types import HOST_ID
from fleet.cli.worker.options import no_shell_option

if TYPE_CHECKING:
    from fleet.local.stack import Stack
    from fleet.local.supervisor import Supervisor
    from fleet.settings import Settings

_PORT = click.IntRange(1, 65535)


@click.command("up", cls=Command, examples=("fleet up", "fleet up --host-id laptop --no-flower"))
@click.option("--host-id", type=HOST_ID, help="Name of this host.  [default: FLEET_HOST_ID, then the hostname]")
@click.option("--no-flower", is_flag=True, help="Leave Flower out.")
@click.option("--no-api", is_flag=True, help="Leave the REST API out.")
@click.option("--broker-port", type=_PORT, metavar="N", help="Port of the broker.  [default: as last time, then 6390]")
@click.option("--flower-port", type=_PORT, metavar="N", help="Port of Flower.  [default: as last time, then 5555]")
@click.option("--api-port", type=_PORT, metavar="N", help="Port of the API.  [default: as last time, then 5556]")
@no_shell_option
def command(
    *,
    host_id: str | None,
    no_flower: bool,
    no_api: bool,
    broker_port: int | None,
    flower_port: int | None,
    api_port: int | None,
    shell: bool | None,
) -> None:
    """Run everything on this machine: broker, control plane, API, Flower, and a host that is enrolled already.

    Everything ends with this command (Ctrl-C). What was recorded stays in the state directory, and the next start
    finds it. Commands and programs of this user find the broker there, too.
    """
    from fleet.local.signals import Signals
    from fleet.local.stack import Stack, Wishes
    from fleet.local.state import StateDirectory
    from fleet.local.supervisor import Outcome, Supervisor

    call = invocation.current()
    settings = call.settings(host_id=host_id, flower_port=flower_port, api_port=api_port, shell=shell)
    wishes = Wishes(
        broker_port=broker_port,
        with_flower=not no_flower,
        with_api=not no_api,
        config=Path(call.config) if call.config else None,
    )
    state = StateDirectory(settings.state_dir)
    with state.held(), Signals() as signals:
        supervisor = Supervisor(signals=signals, say=render.say)
        stack = Stack(settings, state=state, supervisor=supervisor, wishes=wishes)
        stack.check()
        password = _flower_password(settings) if not no_flower else ""
        try:
            outcome = stack.start()
            if outcome is not Outcome.STOPPING:
                for line in _summary(settings, stack, supervisor, password=password):
                    render.say(line)
                supervisor.watch()
            render.say("Stopping …")
        finally:
            left = supervisor.stop()
    render.say(f"Everything has ended; the state stays in {state.path}" if not left else f"Still there: pids {left}")


def _flower_password(settings: "Settings") -> str:
    """Make Flower's password where there is none yet, and return what to tell about it."""
    from fleet.flower import password

    secret, made = password.obtain(settings)
    if made:
        return f"password {secret.get_secret_value()} (shown this once, kept in {password.path(settings)})"
    return "password as set" if settings.flower_password else f"password in {password.path(settings)}"


def _summary(settings: "Settings", stack: "Stack", supervisor: "Supervisor", *, password: str) -> Iterator[str]:
    from fleet import powers

    missing = stack.missing()
    yield f"Fleet is up; its state is in {settings.state_dir}" if not missing else "Fleet is starting"
    what = {
        "broker": f"127.0.0.1:{stack.broker.port}",
        "control": "records what hosts report",
        "worker": f"host {stack.host}",
        "api": f"http://{settings.api_address}:{settings.api_port}  `fleet principal token` makes a bearer token",
        "flower": f"http://{settings.flower_address}:{settings.flower_port}  user {settings.flower_user}, {password}",
    }
    for name in stack.names:
        late = f"  not ready yet: {settings.state_dir / 'log' / name}.log" if name in missing else ""
        yield f"  {name:<8} pid {supervisor.pid(name) or '-':<8} {what[name]}{late}"
    if stack.heartbeat and stack.heartbeat.docker_reachable:
        yield f"  docker   answers at {settings.resolved_docker_url}"
    else:
        from fleet.cli import checks

        for finding in checks.docker(settings):
            yield f"  docker   {finding.text}"
            if finding.level != "ok":
                yield f"           Everything but container work runs. To mend it: {finding.remedy}"
    yield powers.of(settings).text(stack.host)
    fleet = _how_to_call(settings)
    yield "Try, in another terminal:"
    yield f"  {fleet} host list"
    yield f"  {fleet} ps"
    yield f"  {fleet} push-task fleet.host.ping --host {stack.host} --wait"
    yield "Ctrl-C ends all of it."


def _how_to_call(settings: "Settings") -> str:
    """Return what somebody in another terminal has to type for `fleet`."""
    from fleet.settings import Settings

    ours = Path(sys.executable).with_name("fleet")
    found = shutil.which("fleet")
    if found and Path(found) == ours:
        how = "fleet"
    elif ours.is_file():
        how = str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)
    else:
        how = f"{sys.executable} -m fleet"
    usual = Settings.model_fields["state_dir"].get_default(call_default_factory=True)
    return how if settings.state_dir == usual else f"FLEET_STATE_DIR={settings.state_dir} {how}"
