"""LiteMedSAM answers what was drawn on a picture; masks of an earlier run are the reference.

`NAPARI_FEDSAM_UPDATE_GOLDEN=1` writes the reference anew.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_fedsam.annotation.answer import answer
from napari_fedsam.annotation.ask import Ask, Painting, Scribble
from napari_fedsam.annotation.drawing import pixels_of_line, pixels_within
from napari_fedsam.sam import Predictor, load_model

GOLDEN = Path(__file__).parent / "golden"
# The ellipse is (75 +- 38, 80 +- 25); its neighbour begins at its right end.
ALONG = ((50.0, 80.0), (75.0, 72.0), (100.0, 80.0))
OVER_THE_NEIGHBOUR = ((124.0, 66.0), (132.0, 74.0), (126.0, 84.0))
AROUND = ((30.0, 80.0), (45.0, 52.0), (75.0, 48.0), (108.0, 58.0), (114.0, 82.0), (75.0, 112.0))
BOTH = (37.0, 50.0, 156.0, 105.0)


@pytest.fixture(scope="module")
def asked(scene):
    # Float32, so that the masks are the same on every processor.
    predictor = Predictor(load_model(), bf16=False)
    embedding = predictor.encode(scene.image)
    return lambda ask: answer(predictor, embedding, ask).mask


def dice(a, b) -> float:
    return 2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))


def check_golden(name: str, mask) -> None:
    path = GOLDEN / f"{name}.png"
    if os.environ.get("NAPARI_FEDSAM_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(path)
    with Image.open(path) as picture:
        assert dice(mask, np.asarray(picture).astype(np.bool_)) >= 0.98


def test_a_scribble(asked, scene) -> None:
    mask = asked(Ask().with_correction(Scribble(ALONG)))
    check_golden("scribble", mask)
    assert mask[pixels_of_line(ALONG, mask.shape)].all()
    assert dice(mask, scene.ellipse) > 0.9


def test_a_negative_scribble(asked, scene) -> None:
    boxed = Ask().with_box(BOTH)
    mask = asked(boxed.with_correction(Scribble(OVER_THE_NEIGHBOUR, positive=False)))
    check_golden("box_and_negative_scribble", mask)
    line = pixels_of_line(OVER_THE_NEIGHBOUR, mask.shape)
    assert asked(boxed)[line].any()
    assert not mask[line].any()
    assert dice(mask, scene.ellipse) > dice(asked(boxed), scene.ellipse)


def test_a_lasso(asked, scene) -> None:
    mask = asked(Ask().with_lasso(AROUND))
    check_golden("lasso", mask)
    assert not mask[~pixels_within(AROUND, mask.shape)].any()
    assert dice(mask, scene.ellipse) > 0.9


def test_what_was_painted(asked) -> None:
    boxed = Ask().with_box(BOTH)
    before = asked(boxed)
    added, removed = np.zeros_like(before), np.zeros_like(before)
    added[110:118, 60:80] = True
    removed[70:90, 40:60] = True
    mask = asked(boxed.with_correction(Painting.of(added, removed)))
    check_golden("box_and_painting", mask)
    assert mask[added].all()
    assert not mask[removed].any()
    kept = ~added & ~removed
    assert dice(mask & kept, before & kept) > 0.9
