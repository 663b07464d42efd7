"""How long a picture takes on a large photo: `python -m benchmarks.rendering [WIDTHxHEIGHT]`, 4000x3000 without.

Each kind of picture of ResNet-50's maps against its own forward pass at batch 1, as it runs in an explanation and without
a graph: medians of interleaved runs in one process, and their ratio.
"""

import statistics
import sys
from collections.abc import Callable
from time import perf_counter

import torch
from PIL import Image

import relume
from relume.demo import draw_scene
from relume.models.libraries import import_torchvision
from relume.pictures.canvas import seen
from relume.pictures.kinds import KINDS
from relume.pictures.photo import Photo
from relume.pictures.preprocessing import IMAGENET

ROUNDS = 9


def main() -> None:
    """Time them in turn, and print a table."""
    width, height = map(int, (sys.argv[1] if len(sys.argv) > 1 else "4000x3000").split("x"))
    scene = draw_scene(0, ["cat", "dog"]).picture
    photo = Photo.whole(scene.resize((width, height), Image.Resampling.BICUBIC))
    torch.manual_seed(0)
    network = import_torchvision().models.resnet50().eval()
    images = IMAGENET.tensor(IMAGENET.view(photo.picture))[None]
    e = relume.explain(network, images, 0, ["guided_backprop", "gradcam"]).with_photos([photo])
    framed = IMAGENET.frame(photo)

    def without_graph() -> None:
        with torch.inference_mode():
            network(images)

    runs: dict[str, Callable[[], object]] = {"forward": lambda: network(images), "forward, no graph": without_graph}
    runs["the photo, dimmed at its sides"] = lambda: seen(framed)
    for method in e.maps:
        values, scale = e.drawn(method), e.scale(method)[0]
        for kind in KINDS.values():
            runs[f"{method}, {kind.key}"] = lambda k=kind, v=values, s=scale: k.draw(v, s, framed)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            start = perf_counter()
            run()
            if turn:  # the first warms up
                times[name].append(perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"{width} × {height}, {torch.get_num_threads()} threads\n")
    print("| | ms | of a forward pass | of one without graph |\n|---|---|---|---|")
    for name, median in medians.items():
        ratios = (f"{median / medians[base]:.2f}" for base in ("forward", "forward, no graph"))
        print(f"| {name} | {1000 * median:.0f} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
