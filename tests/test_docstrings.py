"""The examples of docstrings run."""

import doctest
import importlib
import io
import pkgutil

import pytest

import relume

MODULES = sorted(m.name for m in pkgutil.walk_packages(relume.__path__, "relume.") if not m.name.endswith("__main__"))


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
