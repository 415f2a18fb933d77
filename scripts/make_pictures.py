"""Make the pictures of README.md: `python scripts/make_pictures.py DEMO_OUT`.

DEMO_OUT is the folder of `napari-fedsam demo --headless --out DEMO_OUT` on the embedded sample.
"""

import sys
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent.parent / "docs" / "images"
STAGES = ("one-click", "proposal", "up-to-date")
WIDTH = 1100


def main(demo: Path) -> None:
    """Shrink the demo's screenshots and store them under their stage's name."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        (screenshot,) = demo.glob(f"[0-9][0-9]-{stage}.png")
        with Image.open(screenshot) as image:
            height = round(image.height * WIDTH / image.width)
            small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        # A palette of 255 colours halves the file and shows no difference here.
        small.quantize(255).save(IMAGES / f"{stage}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
