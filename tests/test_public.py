"""The public surface, the weight of an import, and the size of files and functions."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import relume

SOURCE = Path(relume.__file__).parent

SURFACE = [
    "AuditReport",
    "Augmented",
    "Backpropagation",
    "Calibration",
    "Comparison",
    "Competing",
    "Coverage",
    "Deconvolution",
    "Explanation",
    "GradCAM",
    "Gradient",
    "GuidedBackpropagation",
    "GuidedGradCAM",
    "GuidedReLU",
    "METHODS",
    "Method",
    "Preprocessing",
    "Run",
    "Smooth",
    "audit",
    "calibrate",
    "captum",
    "compare",
    "compute_guided_gradcam",
    "coverage",
    "errors",
    "evaluate",
    "explain",
    "open_model",
    "prepare",
    "preprocess_image",
    "rules",
    "run",
    "share",
    "targets",
]


def test_the_public_surface():
    assert sorted(relume.__all__) == SURFACE == sorted(dir(relume))
    for name in SURFACE:
        assert getattr(relume, name) is not None
    cams = ["gradcam", "hirescam", "layercam", "gradcam_plusplus", "xgradcam"]
    by_rule = ["gradient", "deconvnet", "guided_backprop", "gradient_x_input"]
    assert list(relume.METHODS) == [*by_rule, *cams, *(f"guided_{key}" for key in cams)]
    assert relume.__version__ == version("relume")
    assert not hasattr(relume, "nonsense")


def test_every_public_thing_says_what_it_is():
    for name in SURFACE:
        if name != "METHODS":
            assert getattr(relume, name).__doc__, name


def test_importing_the_package_is_light():
    heavy = ["torch", "numpy", "matplotlib", "PIL", "pyarrow", "typer", "torchvision", "safetensors"]
    code = f"import sys, relume; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_the_engine_loads_no_library_of_pictures():
    """At run time too: import-linter, in ``make lint``, does not see what lazily loaded names bring."""
    modules = [f"relume.engine.{path.stem}" for path in (SOURCE / "engine").glob("*.py") if path.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; print([m for m in ['PIL', 'matplotlib', 'skimage'] if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_rooms_name_the_room_that_they_import_from():
    """``from relume import explain`` would hide from import-linter which room is meant."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "relume":
                names = {alias.name for alias in node.names} - {"__version__"}
                assert all((SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file() for name in names), path


#: Functions of the package that are long with the description of their options.
LONG = ("audit", "calibrate", "evaluate", "explain", "run")


def test_files_and_functions_stay_small():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 600, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name not in LONG:
                assert node.end_lineno - node.lineno < 60, f"{path}:{node.name}"
