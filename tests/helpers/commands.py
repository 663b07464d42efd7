"""The command, run inside the tests, and what it says on stderr."""

import re

from typer.testing import CliRunner

from relume.cli import app


def relume_command(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def complaints(result):
    """The lines on stderr but for those on which network and calibration were taken, where it runs, and how far an audit is."""
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith(("auditing ", "calibration "))]
    if lines and lines[0].startswith("no --model was given, so this is the demo network"):
        lines.pop(0)
    if lines and re.fullmatch(r"\S+ on (cpu|cuda:\d+|mps)", lines[0]):
        lines.pop(0)
    return lines


def sentence(result, code):
    """Nothing but one sentence on stderr, with this exit code."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    lines = complaints(result)
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("relume: ")
    return lines[0]
