"""Docstrings say what to do in plain English, and every public one has an example that runs."""

import ast
import doctest
import importlib
import inspect
import io
import pkgutil
import typing
from pathlib import Path

import pytest

import relume

SOURCE = Path(relume.__file__).parent
ROOMS = sorted(f"relume.{path.parent.name}" for path in SOURCE.glob("*/__init__.py") if path.parent.name != "cli")
MODULES = sorted(m.name for m in pkgutil.walk_packages(relume.__path__, "relume.") if not m.name.endswith("__main__"))
RIDDLES = ("What ", "Whether ", "How ", "Of ")


def test_no_docstring_of_a_function_is_a_riddle():
    """ruff's D401 asks for a verb; these are the words it lets through."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                found += [f"{path.relative_to(SOURCE)}: {text.splitlines()[0]}"] if text.startswith(RIDDLES) else []
    assert not found, "\n".join(found)


def public():
    """Yield every function and class that the package or a room exports, under the first name it has there."""
    seen = set()
    for place in ["relume", *ROOMS]:
        room = importlib.import_module(place)
        for name in getattr(room, "__all__", ()):
            thing = getattr(room, name)
            if typing.is_typeddict(thing):
                continue  # a list of options, shown where they are used
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and id(thing) not in seen:
                seen.add(id(thing))
                yield pytest.param(thing, id=f"{place}.{name}")


@pytest.mark.parametrize("thing", list(public()))
def test_everything_public_has_an_example(thing):
    texts = [thing.__doc__ or ""]
    if inspect.isclass(thing):  # a class may show its use where it is made or called
        texts += [method.__doc__ or "" for method in vars(thing).values() if inspect.isfunction(method)]
    assert any(">>> " in text for text in texts)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    report = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(module):
        assert not any(doctest.SKIP in line.options for line in example.examples), example.name
        runner.run(example, out=report.write)
    assert not report.getvalue(), report.getvalue()
