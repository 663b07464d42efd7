"""The command ``relume``: it turns options into calls of the library, and results and errors into words.

Nothing heavy is imported until a command runs, so ``--help`` answers at once. Each command is a module; ``common`` holds what
they share.
"""

import io
import os
import sys
from typing import Annotated

import typer

from relume import __version__
from relume.cli import audit, calibrate, check, compare, demo, evaluate, explain, report, run
from relume.cli.common import out
from relume.cli.failures import reported

__all__ = ["app", "main"]

app = typer.Typer(
    name="relume",
    help="Which pixels made a vision network decide? Guided backpropagation and Guided Grad-CAM for PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for module in (demo, explain, compare, audit, calibrate, check, evaluate, run, report):
    app.command(epilog=module.EXAMPLES)(reported(getattr(module, module.__name__.rpartition(".")[2])))


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - how typer calls it
    if wanted:
        out.print(f"relume {__version__}")
        raise typer.Exit


@app.callback()
def _relume(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the terminal cannot show, a file's name for one
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's C++ code would warn with paths of its sources
    app()
