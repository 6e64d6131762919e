"""`fleet completion`: the script by which a shell completes Fleet's commands."""

import click

from fleet.cli.grammar import Command

_INSTALL = {
    "bash": "fleet completion bash > ~/.local/share/bash-completion/completions/fleet",
    "zsh": 'fleet completion zsh > "${fpath[1]}/_fleet"',
    "fish": "fleet completion fish > ~/.config/fish/completions/fleet.fish",
}


@click.command("completion", cls=Command, examples=tuple(_INSTALL.values()))
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None  # the choice above names click's own
    source = completion(ctx.find_root().command, {}, "fleet", "_FLEET_COMPLETE")
    # Not `source()`: for bash it runs bash to learn its version, and the script works from 4.4 (2016) on.
    click.echo(source.source_template % source.source_vars())
