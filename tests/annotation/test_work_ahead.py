"""Slices are encoded ahead from the one on screen outwards, and scrolling to one is instant."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_fedsam.annotation.answering import Answering
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.viewpoint import Viewpoint
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.sam import Predictor, load_model
from napari_fedsam.sam.embedding_store import EmbeddingStore


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(load_model())


@pytest.fixture
def model(predictor: Predictor, tmp_path: Path) -> ModelInUse:
    return ModelInUse(predictor, "LiteMedSAM", store=EmbeddingStore(tmp_path))


@pytest.fixture
def answering(model: ModelInUse) -> Answering:
    view = Viewpoint()
    answering = Answering(view, Ask)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 32, 32)).astype(np.uint8)
    view.open(Scan(pixels, Geometry.identity((32, 32, 5)), "noise", Path("noise.nii")))
    answering.use_model(model)
    return answering


def order_of_work(answering: Answering) -> list[int]:
    found = []
    while (work := answering.work_ahead()) is not None:
        found.append(work.key[1].index)
        answering.finish_ahead(work, work.run())
    return found


def test_the_nearest_come_first_and_each_once(answering: Answering) -> None:
    answering.run_pending()
    assert answering.is_encoded
    assert order_of_work(answering) == [1, 3, 0, 4]
    assert answering.work_ahead() is None


def test_a_slice_encoded_ahead_needs_no_work_when_it_is_shown(answering: Answering) -> None:
    order_of_work(answering)
    answering._view.show_slice(0, 4)
    assert answering.is_encoded
    assert answering.pending_work() is None


def test_another_model_or_window_is_encoded_anew(answering: Answering, model, tmp_path) -> None:
    from napari_fedsam.imaging.window import Window

    order_of_work(answering)
    answering._view.set_window(Window(10, 90))
    assert answering.work_ahead() is not None
    order_of_work(answering)
    answering.use_model(replace(model, version=2))
    assert answering.work_ahead() is not None


def test_a_result_for_a_model_that_is_gone_is_dropped(answering: Answering, model) -> None:
    work = answering.work_ahead()
    assert work is not None
    embedding = work.run()
    answering.use_model(replace(model, version=2))
    answering.finish_ahead(work, embedding)
    assert not answering.is_encoded


def test_without_a_store_nothing_is_encoded_ahead(answering: Answering, model) -> None:
    answering.use_model(replace(model, store=None))
    assert answering.work_ahead() is None
