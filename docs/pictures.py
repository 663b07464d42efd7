"""Draw the picture of the README: `python docs/pictures.py WEIGHTS`, with torchvision's SqueezeNet 1.0 weights.

The two photographs come with scikit-image and are in the public domain (CC0): Chelsea the cat, by Stefan van der Walt, and
a cup of espresso, by Rachel Michetti. Side by side they are one picture of two things.
"""

import dataclasses
import io
import sys
from pathlib import Path

from PIL import Image
from skimage import data

import relume
from relume.models import open_model
from relume.render import figure_png
from relume.result import sheet

METHODS = ["gradient", "guided_backprop", "gradcam", "guided_gradcam"]


def picture() -> Image.Image:
    """The cat on the left, the cup on the right, 448 pixels square."""
    both = Image.new("RGB", (448, 448))
    cat = Image.fromarray(data.chelsea())  # type: ignore[no-untyped-call]
    cup = Image.fromarray(data.coffee())  # type: ignore[no-untyped-call]
    both.paste(cat.resize((673, 448)).crop((201, 0, 471, 448)), (0, 0))
    both.paste(cup.resize((672, 448)).crop((247, 0, 425, 448)), (270, 0))
    return both


def main() -> None:
    """Explain it for both and draw the sheet."""
    opened = open_model("torchvision:squeezenet1_0", sys.argv[1])
    view = opened.preprocessing.view(picture())
    x = opened.preprocessing.tensor(view)[None]
    explained = [
        dataclasses.replace(e, photos=[view], labels=opened.labels, model="SqueezeNet 1.0")
        for e in relume.explain_targets(opened.model, x, [285, 967], METHODS, "features.12")
    ]
    drawn = Image.open(io.BytesIO(figure_png(sheet(explained))))
    drawn.convert("RGB").save(Path(__file__).with_name("images") / "readme.jpg", quality=88)


if __name__ == "__main__":
    main()
