"""Draw the pictures of the documentation: `python docs/pictures.py [WEIGHTS]`.

The README's first picture and the page of `relume compare`, which needs Chromium, are drawn if WEIGHTS, torchvision's
SqueezeNet 1.0, are given. Its two photographs come with
scikit-image and are in the public domain (CC0): Chelsea the cat, by Stefan van der Walt, and a cup of espresso, by Rachel
Michetti. Side by side they are one picture of two things.
"""

import dataclasses
import io
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright
from skimage import data

import relume
from relume.demo import CLASSES, draw_scene
from relume.explanation.result import sheet
from relume.models import Opened, open_model
from relume.pictures.figure import figure_bytes

IMAGES = Path(__file__).with_name("images")


def photographs() -> Image.Image:
    """The cat on the left, the cup on the right, 448 pixels square."""
    both = Image.new("RGB", (448, 448))
    cat = Image.fromarray(data.chelsea())  # type: ignore[no-untyped-call]
    cup = Image.fromarray(data.coffee())  # type: ignore[no-untyped-call]
    both.paste(cat.resize((673, 448)).crop((201, 0, 471, 448)), (0, 0))
    both.paste(cup.resize((672, 448)).crop((247, 0, 425, 448)), (270, 0))
    return both


def draw_sheet(name: str, opened: Opened, picture: Image.Image, targets: list[int], methods: list[str], layer: str) -> None:
    """Explain a picture for each target and draw the sheet."""
    explained = opened.compare(picture, targets, methods, layer)
    save(Image.open(io.BytesIO(figure_bytes(sheet(explained)))), name)


def draw_scenes(name: str, columns: int = 8, rows: int = 3, gap: int = 4) -> None:
    """The first scenes, side by side."""
    side = 128 + gap
    wall = Image.new("RGB", (columns * side - gap, rows * side - gap), "white")
    for i in range(columns * rows):
        wall.paste(draw_scene(i).picture, (i % columns * side, i // columns * side))
    save(wall, name)


def draw_audit(name: str, picture: Image.Image) -> None:
    """What an audit finds out about guided backpropagation on a scene."""
    opened = open_model("demo")
    image = opened.preprocessing.tensor(opened.preprocessing.view(picture))[None]
    report = relume.audit(opened.model, image, method="guided_backprop", activation=opened.activation, labels=opened.labels)
    save(Image.open(io.BytesIO(figure_bytes(report.figure()))), name)


def draw_page(name: str, picture: Image.Image, weights: str) -> None:
    """The page that `relume compare` makes, as a browser shows it."""
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
        ]
        command = [sys.executable, "-m", "relume", "compare", "cat-and-cup.png", *options, "--output", "out"]
        subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - its own command
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 930}, color_scheme="light")
        page.goto(Path(folder, "out", "compare.html").as_uri())
        page.locator("input[type=range]").fill("80")
        page.keyboard.press("Tab")  # away from the slider, whose focus would be framed
        page.mouse.move(360, 300)
        save(Image.open(io.BytesIO(page.screenshot())), name)
        browser.close()


def save(picture: Image.Image, name: str) -> None:
    """Write a picture small enough for a repository."""
    picture.convert("RGB").save(IMAGES / name, quality=88)


def main() -> None:
    """Draw them all."""
    draw_scenes("scenes.jpg")
    scene = draw_scene(0, ["cat", "dog"]).picture
    draw_audit("audit.jpg", draw_scene(7, ["cat", "dog"]).picture)
    draw_sheet("demo.jpg", open_model("demo"), scene, [CLASSES.index("cat"), CLASSES.index("dog")], [*relume.METHODS], "layer3")
    if len(sys.argv) > 1:
        opened = dataclasses.replace(open_model("torchvision:squeezenet1_0", weights=sys.argv[1]), name="SqueezeNet 1.0")
        methods = ["gradient", "guided_backprop", "gradcam", "guided_gradcam"]
        draw_page("compare.jpg", photographs(), str(Path(sys.argv[1]).absolute()))
        draw_sheet("readme.jpg", opened, photographs(), [285, 967], methods, "features.12")


if __name__ == "__main__":
    main()
