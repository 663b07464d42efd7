"""How fast scenes are drawn: `python -m benchmarks.scenes`. One process, one thread."""

from time import perf_counter

from relume.demo import draw_scene

COUNT = 500


def main() -> None:
    """Draw some and say how many a second."""
    draw_scene(0)
    start = perf_counter()
    for seed in range(COUNT):
        draw_scene(seed)
    print(f"{COUNT / (perf_counter() - start):.0f} scenes a second on one core")


if __name__ == "__main__":
    main()
