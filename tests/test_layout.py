"""The tests' own house: it mirrors the source, and nothing is borrowed from another test."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "relume"
FILES = sorted(TESTS.rglob("test_*.py"))
SHARED = {"golden", "helpers", "reference"}


def test_no_test_imports_from_another_test():
    """Helpers neither: what several tests need is in ``tests/helpers``, what is compared against in ``tests/reference``."""
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[-1].startswith("test_")], path


def test_the_rooms_are_those_of_the_source():
    folders = {path.parent.name for path in TESTS.glob("*/*.*")} - {"__pycache__"}
    assert folders - SHARED <= {path.parent.name for path in SOURCE.glob("*/*.py")}
    assert {path.parent.name for path in FILES} <= (folders - SHARED) | {TESTS.name}
