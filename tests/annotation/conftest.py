"""A session over a small scan, answered by a stand-in for the model."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.structures import FIRST_STRUCTURE
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.sam.errors import PromptError
from napari_fedsam.sam.prediction import Prediction

DISC = 3.0


class DiscPredictor:
    """Answers clicks with discs, boxes with their inside, and nothing with a fixed square.

    Counts what it is asked, and refuses what the real predictor refuses.
    """

    def __init__(self, *, proposes: bool = False) -> None:
        kinds = {"none", "box"} if proposes else {"box"}
        self.model = SimpleNamespace(prompt_kinds=frozenset(kinds))
        self.encoded: list[np.ndarray] = []
        self.asked: list[tuple] = []

    def encode(self, image, between=None):
        assert image.dtype == np.uint8
        self.encoded.append(image)
        return SimpleNamespace(image_shape=image.shape[:2])

    def redrawn(self, mask, previous):
        score = 1.0 if previous is None else previous.score
        return Prediction(mask, score, np.where(mask, 1, -1).astype(np.float32))

    def predict(self, embedding, prompts, *, structure=None, previous=None):
        prompts.check_within(embedding.image_shape)
        height, width = embedding.image_shape
        rows, columns = np.mgrid[:height, :width]
        self.asked.append((prompts, structure, previous))
        mask = np.zeros((height, width), bool) if previous is None else previous.mask.copy()
        if prompts.mask is not None and previous is None:
            mask |= prompts.mask
        if prompts.is_empty:
            mask[2:6, 2:6] = True
        if prompts.box is not None:
            x0, y0, x1, y1 = prompts.box
            mask |= (columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)
        elif len(prompts.points) and not len(prompts.positives) and previous is None:
            raise PromptError("Only negative clicks were given: add a positive click first.")
        for (x, y), positive in zip(prompts.points, prompts.labels, strict=True):
            mask[np.hypot(columns - x, rows - y) <= DISC] = positive
        logits = np.where(mask, 1, -1).astype(np.float32)
        return Prediction(mask, 0.9, logits)


@pytest.fixture
def predictor() -> DiscPredictor:
    return DiscPredictor()


@pytest.fixture
def model(predictor) -> ModelInUse:
    return ModelInUse(predictor, "Disc")


@pytest.fixture
def site_model() -> ModelInUse:
    return ModelInUse(
        DiscPredictor(proposes=True), "Disc", round=3, version=2, structures=(FIRST_STRUCTURE,)
    )


@pytest.fixture
def scan() -> Scan:
    pixels = np.random.default_rng(1).integers(0, 900, (6, 20, 30)).astype(np.int16)
    geometry = Geometry((30, 20, 6), (0.5, 0.7, 3.0), (1.0, 2.0, 3.0), tuple(np.eye(3).ravel()))
    return Scan(pixels, geometry, "small", Path("small.nii"), modality="MR", patient_key="P1")


@pytest.fixture
def store(tmp_path) -> CaseStore:
    return CaseStore(tmp_path / "cases")


@pytest.fixture
def session(store, scan, model) -> AnnotationSession:
    session = AnnotationSession(store, annotator="anna")
    session.use_model(model)
    session.open_scan(scan)
    session.answering.run_pending()
    return session


@pytest.fixture
def session_on(store, scan, model):
    """Return a function that begins a session whose cases are kept by a disk of the test's."""

    def begin(disk) -> AnnotationSession:
        session = AnnotationSession(store, disk=disk)
        session.use_model(model)
        session.open_scan(scan)
        return session

    return begin


@pytest.fixture
def clicked():
    """Return a function that clicks, waits for the answer and returns it."""

    def click(session, x=10.0, y=8.0, *, positive=True):
        session.add_click(x, y, positive=positive)
        session.answering.run_pending()
        return session.preview

    return click


@pytest.fixture
def shown():
    """Return a function that gives the slice of the segmentation that is on screen."""

    def slice_on_screen(session):
        return session.view.slice.pixels(session.segmentation)

    return slice_on_screen


@pytest.fixture
def heard():
    """Return a function that lists what a signal tells from now on."""

    def listen(signal):
        calls = []
        signal.connect(lambda *args: calls.append(args))
        return calls

    return listen
