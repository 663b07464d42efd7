"""Draw the pictures of the documentation: `python docs/pictures.py [WEIGHTS]`.

With WEIGHTS, the file of torchvision's SqueezeNet 1.0, the README's first picture and the page of `relume compare` are drawn
too; the page needs Chromium. Their two photographs come with scikit-image and are in the public domain (CC0): Chelsea the
cat, by Stefan van der Walt, and a cup of espresso, by Rachel Michetti. One above the other they are one photo of two things,
both whole.
"""

import dataclasses
import io
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from skimage import data

import relume
from relume.cli.demo import METHODS
from relume.demo import CLASSES, VOLUME_CLASSES, draw_scene, draw_volume, load_volume_network
from relume.explanation.sheet import sheet
from relume.models import Opened, open_model
from relume.pictures.figure import figure_bytes
from relume.pictures.recording import Recording

IMAGES = Path(__file__).with_name("images")


#: Height and width of the two photographs as the network sees them: each as large as the pictures that it was trained on.
SEEN = (448, 336)


def photographs() -> Image.Image:
    """Put the cat above the cup, 600 × 800 pixels."""
    both = Image.new("RGB", (600, 800))
    for top, photograph in ((0, data.chelsea()), (400, data.coffee())):  # type: ignore[no-untyped-call]
        both.paste(Image.fromarray(photograph).resize((600, 400)), (0, top))
    return both


def draw_sheet(name: str, opened: Opened, picture: Image.Image, targets: list[int], methods: list[str], layer: str) -> None:
    """Explain a picture for each target and draw the sheet."""
    explained = opened.compare(picture, targets, methods, layer)
    save(Image.open(io.BytesIO(figure_bytes(sheet(explained)))), name)


def draw_scenes(name: str, columns: int = 8, rows: int = 3, gap: int = 4) -> None:
    """Draw the first scenes, side by side."""
    side = 128 + gap
    wall = Image.new("RGB", (columns * side - gap, rows * side - gap), "white")
    for i in range(columns * rows):
        wall.paste(draw_scene(i).picture, (i % columns * side, i // columns * side))
    save(wall, name)


def draw_audit(name: str, picture: Image.Image) -> None:
    """Draw the audit of guided backpropagation on a scene."""
    opened = open_model("demo")
    image = opened.preprocessing.tensor(opened.preprocessing.view(picture))[None]
    report = relume.audit(opened.model, image, method="guided_backprop", activation=opened.activation, labels=opened.labels)
    save(Image.open(io.BytesIO(figure_bytes(report.figure()))), name)


def draw_page(name: str, picture: Image.Image, weights: str) -> None:
    """Draw the page of `relume compare`, as a browser shows it."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        picture.save(Path(folder, "cat-and-cup.png"))
        options = [
            "--model",
            "torchvision:squeezenet1_0",
            "--weights",
            weights,
            "--layer",
            "features.12",
            "--target",
            "285,967",
            "--resize",
            f"{SEEN[0]},{SEEN[1]}",
            "--crop",
            f"{SEEN[0]},{SEEN[1]}",
        ]
        command = [sys.executable, "-m", "relume", "compare", "cat-and-cup.png", *options, "--output", "out"]
        subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - its own command
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 930}, color_scheme="light")
        page.goto(Path(folder, "out", "compare.html").as_uri())
        page.locator("input[type=range]").fill("80")
        page.evaluate("document.activeElement.blur()")  # a focused slider has a frame
        page.mouse.move(360, 230)
        save(Image.open(io.BytesIO(page.screenshot())), name)
        browser.close()


def draw_volume_page(name: str) -> None:
    """Draw the page of a volume that holds a box and a tube, as a browser shows it."""
    scene, classes = draw_volume(7, ["box", "tube"]), [VOLUME_CLASSES.index(name) for name in ("tube", "box")]
    image, methods = torch.from_numpy(scene.values)[None], ["guided_backprop", "gradcam", "guided_gradcam"]
    both = relume.compare(load_volume_network(), image, classes, methods, labels=VOLUME_CLASSES)
    scan = Recording(scene.values, "volume", unit="mm")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        relume.Comparison(tuple(e.with_photos([scan]) for e in both)).save(folder)
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 780}, color_scheme="dark")
        page.goto(Path(folder, "compare.html").as_uri())
        page.wait_for_function("() => levels() && scan()")
        page.mouse.move(200, 260)
        save(Image.open(io.BytesIO(page.screenshot())), name)
        browser.close()


def save(picture: Image.Image, name: str) -> None:
    """Write a picture small enough for a repository."""
    picture.convert("RGB").save(IMAGES / name, quality=88)


def main() -> None:
    """Draw them all."""
    draw_scenes("scenes.jpg")
    scene = draw_scene(0, ["cat", "dog"]).picture
    draw_volume_page("volume-page.jpg")
    draw_audit("audit.jpg", draw_scene(7, ["cat", "dog"]).picture)
    draw_sheet("demo.jpg", open_model("demo"), scene, [CLASSES.index("cat"), CLASSES.index("dog")], [*METHODS], "layer3")
    if len(sys.argv) > 1:
        opened = open_model("torchvision:squeezenet1_0", weights=sys.argv[1])
        whole = dataclasses.replace(opened.preprocessing, resize=SEEN, crop=SEEN)
        opened = dataclasses.replace(opened, name="SqueezeNet 1.0", preprocessing=whole)
        methods = ["guided_backprop", "gradcam", "guided_gradcam"]
        draw_page("compare.jpg", photographs(), str(Path(sys.argv[1]).absolute()))
        draw_sheet("readme.jpg", opened, photographs(), [285, 967], methods, "features.12")


if __name__ == "__main__":
    main()
