"""Copy a manifest's images in a small size: `python scripts/shrink_data.py MANIFEST OUT [SIDE]`.

For a machine that the data must travel to. Images are brought to at most SIDE pixels (256, the
side that LiteMedSAM sees), masks without mixing their values; OUT/manifest.csv lists them.
"""

import csv
import sys
from pathlib import Path

from PIL import Image


def main(manifest: Path, out: Path, side: int = 256) -> None:
    """Write the copies and their manifest; what is there already is kept."""
    with manifest.open(newline="", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        for column, how in (
            ("image", Image.Resampling.LANCZOS),
            ("mask", Image.Resampling.NEAREST),
        ):
            copy = out / row[column]
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                small = _shrunk(manifest.parent / row[column], side, how)
                small.save(copy, quality=95)
    kept = [name for name in rows[0] if not name.startswith(("sha256", "width", "height"))]
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _shrunk(path: Path, side: int, how: Image.Resampling) -> Image.Image:
    with Image.open(path) as image:
        scale = min(1.0, side / max(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, how)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
