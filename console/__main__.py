"""The `hub` command: puts the commands together and says in one line what went wrong.

Commands import what they need when they run, so that `hub --help` and `hub token` answer at once.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from console import (
    config_command,
    dead_letter_commands,
    requests_commands,
    targets_command,
    token_command,
    up,
)

EXAMPLES = """\b
Examples:
  hub up                                   run everything on this machine
  hub send --wait                          send the example order and wait for its end
  hub token --partner acme                 a token for curl
  hub dead-letters list                    what ended Failed and waits for somebody
  hub dead-letters redrive --all --dry-run what would be sent round again

Settings come from the environment: `hub config` lists them.
"""


class HubCommands(TyperGroup):
    """The commands; an error of the hub ends any of them with one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from chassis.errors import HubError

            if not isinstance(error, HubError):
                raise
            typer.echo(f"hub: {error.message}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=HubCommands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Run and steer the Integration Hub.",
    epilog=EXAMPLES,
)


def _print_version(asked: bool) -> None:
    if asked:
        from console.configuration import hub_version

        typer.echo(f"hub {hub_version()}")
        raise typer.Exit


@app.callback()
def hub(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run and steer the Integration Hub."""


app.command(epilog=up.EXAMPLES)(up.up)
app.command(epilog=requests_commands.SEND_EXAMPLES)(requests_commands.send)
app.command(epilog=requests_commands.GET_EXAMPLES)(requests_commands.get)
app.command(epilog=token_command.TOKEN_EXAMPLES)(token_command.token)
app.command(epilog=token_command.KEYS_EXAMPLES)(token_command.keys)
app.add_typer(dead_letter_commands.app, name="dead-letters", help="List, show, redrive and discard failed requests.")
app.command(epilog=targets_command.EXAMPLES)(targets_command.targets)
app.command(epilog=config_command.EXAMPLES)(config_command.config)


def main() -> None:
    """Run the command line; the entry point of `hub`."""
    app(prog_name="hub")


if __name__ == "__main__":
    main()
