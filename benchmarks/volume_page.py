"""How large the page of a volume is: `python -m benchmarks.volume_page [SIDE]`, 256 without.

The scan is two densities with the noise of a CT, 20 HU, in a window of 1400 HU. A page has one map: of a layer, 16 cells a
side; of the input, in a part of it; and noise everywhere, which is the worst.
"""

import sys

import numpy as np

from relume.pages.recordings import RecordingMap, RecordingTarget, RecordingView, recordings_page
from relume.pictures.ground import draw, palette
from relume.pictures.kinds import KINDS
from relume.pictures.montage import DrawnMap
from relume.pictures.recording import Recording

LIMITS = (-1000.0, 400.0)


def main() -> None:
    """Write each page in memory, and print its size."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    generator = np.random.default_rng(0)
    z, y, x = (axis / side - 0.5 for axis in np.ogrid[:side, :side, :side])
    scan = np.where((z / 0.45) ** 2 + (y / 0.42) ** 2 + (x / 0.35) ** 2 < 1, 40, -1000).astype(np.float32)
    scan[(z / 0.3) ** 2 + (y / 0.25) ** 2 + ((x + 0.2) / 0.1) ** 2 < 1] = -700
    scan += generator.normal(0, 20, scan.shape)
    noise = generator.normal(size=scan.shape).astype(np.float32)
    part = noise * np.exp(-90 * ((z - 0.1) ** 2 + y**2 + (x + 0.2) ** 2)).astype(np.float32)
    recording = Recording(scan[None].astype(np.int16), "volume", unit="mm", limits=LIMITS)
    for name, values in (("layer", generator.random((16, 16, 16), np.float32)), ("part of the input", part), ("noise", noise)):
        over, full = KINDS["over"], float(np.percentile(np.abs(values), 99.5))
        drawn, bar = DrawnMap(over, values, full), over.layer(over.ramp, 1)
        picture, alone, place = draw(recording, drawn, size=480), draw(recording, size=400), (side // 2,) * 3
        shown = RecordingMap("map", name, values, full, palette(recording, over), picture, bar, (0, full), "", place)
        targets = [RecordingTarget("target", [shown])]
        view = RecordingView("scan", "volume", recording.values, LIMITS, recording.spacing, "mm", recording.box, alone, targets)
        print(f"{side}³, {name}: {len(recordings_page([view], title='relume').encode()) / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
