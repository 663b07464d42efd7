"""The public surface, the weight of an import, and the direction of imports."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import relume

SOURCE = Path(relume.__file__).parent

# each may import those before it
ORDER = [
    "errors",
    "memory",
    "maps",
    "names",
    "rules",
    "rectifiers",
    "lean",
    "graph",
    "outputs",
    "targets",
    "grids",
    "exchange",
    "recorded",
    "copies",
    "wrapped",
    "replica",
    "faults",
    "fingerprint",
    "preparation",
    "plan.convolution",
    "plan.folding",
    "predictions",
    "choices",
    "layers",
    "text",
    "reading",
    "image",
    "activation",
    "scaling",
    "render",
    "figures",
    "owner",
    "report",
    "answer",
    "evidence.localisation",
    "evidence.baselines",
    "evidence.similarity",
    "evidence.glance",
    "stored",
    "result",
    "page",
    "feeding",
    "diagnosis",
    "forward",
    "trace",
    "methods",
    "remarks",
    "smooth",
    "chunks",
    "explaining",
    "attribution",
    "plan.observing",
    "plan.flat",
    "plan.cut",
    "plan.planned",
    "plan.compiled",
    "plan.preparing",
    "plan",
    "checking",
    "models.reading",
    "models.weights",
    "models.labels",
    "models.devices",
    "models",
    "models.vision",
    "models.image_models",
    "models.hugging_face",
    "models.files",
    "models.factories",
    "demo.pen",
    "demo.things",
    "demo.backgrounds",
    "demo.scenes",
    "demo.network",
    "demo",
    "demo.train",
    "evidence.estimates",
    "evidence.question",
    "evidence.weights",
    "evidence.randomisation",
    "evidence.classes",
    "evidence.edges",
    "evidence.imputation",
    "evidence.faithfulness",
    "evidence.stability",
    "evidence.health",
    "evidence.checks",
    "evidence.verdict",
    "evidence.strips",
    "evidence.picture",
    "evidence.plots",
    "evidence.document",
    "evidence.conditions",
    "evidence.auditing",
    "evidence.evaluation",
    "evidence.datasets",
    "evidence.calibration",
    "evidence",
    "cli.common",
    "cli.failures",
    "cli.photos",
    "cli.folders",
    "cli.network",
    "cli.pictures",
    "cli.audit",
    "cli.check",
    "cli.compare",
    "cli.demo",
    "cli.evaluate",
    "cli.explain",
    "cli",
    "__main__",
]

SURFACE = [
    "AuditReport",
    "Augmented",
    "Backpropagation",
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
    "Smooth",
    "audit",
    "compute_guided_gradcam",
    "coverage",
    "errors",
    "evaluate",
    "explain",
    "explain_targets",
    "open_model",
    "prepare",
    "preprocess_image",
    "rules",
    "share",
    "targets",
]


def test_the_public_surface():
    assert sorted(relume.__all__) == SURFACE == sorted(dir(relume))
    for name in SURFACE:
        assert getattr(relume, name) is not None
    assert list(relume.METHODS) == ["gradient", "deconvnet", "guided_backprop", "gradcam", "guided_gradcam"]
    assert relume.__version__ == version("relume")
    assert not hasattr(relume, "nonsense")


def test_every_public_thing_says_what_it_is():
    for name in SURFACE:
        if name != "METHODS":
            assert getattr(relume, name).__doc__, name


def test_importing_the_package_is_light():
    heavy = ["torch", "numpy", "matplotlib", "PIL", "typer", "torchvision", "safetensors"]
    code = f"import sys, relume; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def imports(path):
    """Modules of the package that ``path`` imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "relume":
            inside = node.module.partition(".")[2]
            for alias in node.names:
                name = f"{inside}.{alias.name}" if inside else alias.name
                yield name if name in ORDER else inside


def test_imports_run_downwards():
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":  # the package itself only says where its names live
            found[name] = {target for target in imports(path) if target}
    assert found.keys() == set(ORDER)
    for name, targets in found.items():
        for target in targets - {"__version__"}:
            # the one exception: models opens a network by importing what builds it when asked to
            opens = name == "models" and (target.startswith("models.") or target == "demo.network")
            assert ORDER.index(target) < ORDER.index(name) or opens, (name, target)
    assert (
        found["rules"]
        == found["targets"] - {"errors", "outputs"}
        == found["rectifiers"]
        == found["outputs"] - {"errors"}
        == set()
    )


def test_files_and_functions_stay_small():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name not in ("explain", "evaluate"):  # long with options
                assert node.end_lineno - node.lineno < 60, f"{path}:{node.name}"
