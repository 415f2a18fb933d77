"""Measuring a model on held-out images, the rule for absent structures included."""

import numpy as np
import pytest

from napari_fedsam.sam import Predictor
from napari_fedsam.training.evaluation import Evaluation, ImageResult, evaluate, prompts_for
from napari_fedsam.training.metrics import dice
from napari_fedsam.training.progress import Progress


@pytest.fixture(scope="module")
def predictor(base) -> Predictor:
    return Predictor(base)


@pytest.fixture(scope="module")
def measured(predictor, samples, absent):
    seen: list[Progress] = []
    return evaluate(predictor, [*samples, absent], progress=seen.append), seen


def test_every_image_is_measured_under_every_prompt_it_offers(measured) -> None:
    results = measured[0].images
    assert [(r.id, r.prompt) for r in results] == [
        ("a", "none"),
        ("a", "point"),
        ("a", "box"),
        ("bb", "none"),
        ("bb", "point"),
        ("bb", "box"),
        ("nothing", "none"),
    ]
    assert [r.group for r in results] == [r.id for r in results]


def test_absent_structures_count_by_their_false_positives_only(measured) -> None:
    *present, last = measured[0].images
    assert last.dice is None
    assert isinstance(last.false_positives, int)
    assert all(r.dice is not None and r.false_positives is None for r in present)
    assert measured[0].count("none") == measured[0].count("box") == 2


def test_false_positives_are_the_marked_pixels(samples, absent) -> None:
    class MarksEverything:
        def encode(self, image):
            return image

        def predict(self, embedding, prompts, *, structure):
            assert structure == 3

            class Answer:
                mask = np.ones(embedding.shape, np.bool_)

            return Answer()

    result = evaluate(MarksEverything(), [samples[0], absent], ("none",))  # type: ignore[arg-type]
    assert result.images[1].false_positives == 48 * 64
    expected = dice(np.ones((48, 64), np.bool_), samples[0].mask)
    assert result.mean_dice("none") == pytest.approx(expected)


def test_boxes_find_the_discs(measured) -> None:
    mean = measured[0].mean_dice("box")
    assert mean is not None
    assert mean > 0.9
    assert mean == pytest.approx(np.mean([r.dice for r in measured[0].images if r.prompt == "box"]))


def test_progress_reaches_one(measured) -> None:
    assert [p.fraction for p in measured[1]] == pytest.approx([1 / 3, 2 / 3, 1])
    assert measured[1][-1].seconds_left == 0


def test_images_are_encoded_in_the_way_that_is_given(predictor, samples) -> None:
    embedding = predictor.encode(samples[0].image)
    asked = []

    def encode(image: np.ndarray):
        asked.append(image)
        return embedding

    given = evaluate(predictor, samples[:1], ("box",), encode=encode)
    assert [image is samples[0].image for image in asked] == [True]
    assert given == evaluate(predictor, samples[:1], ("box",))


def test_means_leave_out_what_has_no_dice() -> None:
    images = (
        ImageResult("a", "g", "none", 0.5, None),
        ImageResult("b", "g", "none", 0.0, None),
        ImageResult("c", "g", "none", None, 12),
        ImageResult("a", "g", "box", 0.9, None),
    )
    evaluation = Evaluation(images)
    assert evaluation.mean_dice("none") == 0.25
    assert evaluation.mean_dice("box") == 0.9
    assert evaluation.mean_dice("point") is None
    assert [evaluation.count(kind) for kind in ("none", "point", "box")] == [2, 0, 1]
    assert Evaluation(images[2:3]).mean_dice("none") is None


def test_simulated_prompts(samples, absent) -> None:
    sample = samples[0]
    none, box, point = (prompts_for(sample, kind) for kind in ("none", "box", "point"))
    assert none is not None
    assert none.is_empty
    assert box is not None
    assert box.box == (10, 12, 30, 32)
    assert point is not None
    assert point.points.tolist() == [[20, 22]]
    assert point.labels.tolist() == [True]
    assert prompts_for(absent, "box") is None
    assert prompts_for(absent, "point") is None
    assert prompts_for(absent, "none") is not None
