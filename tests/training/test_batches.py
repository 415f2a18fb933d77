"""Batches: every structure equally often, the structures of an image together."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_fedsam.training.batches import Batches
from napari_fedsam.training.feature_cache import PlainEncoder
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.variants import variant


@pytest.fixture(scope="module")
def encoder(small_base) -> PlainEncoder:
    """Features are the encoder's input, in which an image can be told from another."""
    return PlainEncoder(small_base)


@pytest.fixture
def batches(encoder):
    def build(cases, *, seed: int = 0, augmentations: int = 0, jitter: float = 0.0) -> Batches:
        return Batches(cases, encoder, seed=seed, augmentations=augmentations, box_jitter=jitter)

    return build


@pytest.fixture(scope="module")
def rare(make_sample) -> list[TrainingSample]:
    """Nine images with one structure, and a single one with the other."""
    common = [make_sample("x" * (i + 1), (12 + 4 * i, 24)) for i in range(9)]
    return [*common, make_sample("rare", (30, 20), structure=7)]


def images_of(built: Batches, count: int) -> list[bytes]:
    return [built.draw(1).features.numpy().tobytes() for _ in range(count)]


def test_a_rare_structure_is_drawn_as_often_as_a_common_one(batches, rare) -> None:
    built = batches(rare)
    drawn = Counter(structure for _ in range(60) for structure in built.draw(1).structures)
    assert drawn == {3: 30, 7: 30}
    assert len(built) == 10


def test_structures_take_turns_within_two_draws(batches, rare) -> None:
    built = batches(rare, seed=4)
    turns = [built.draw(1).structures[0] for _ in range(40)]
    assert all(set(pair) == {3, 7} for pair in zip(turns[::2], turns[1::2], strict=True))
    assert len(set(zip(turns[::2], turns[1::2], strict=True))) == 2


def test_every_image_of_a_structure_comes_before_any_comes_again(batches, rare) -> None:
    built = batches([sample for sample in rare if sample.structure == 3])
    drawn = images_of(built, 36)
    passes = [tuple(drawn[i : i + 9]) for i in range(0, 36, 9)]
    assert all(len(set(one)) == 9 for one in passes)
    assert len(set(passes)) > 1


def siblings(sample: TrainingSample) -> list[TrainingSample]:
    """The same image with another structure: the left half of the first."""
    half = sample.mask.copy()
    half[:, int(np.nonzero(sample.mask)[1].mean()) :] = False
    return [sample, replace(sample, id=sample.id + " half", mask=half, structure=7)]


@pytest.mark.parametrize("augmentations", [0, 3])
def test_structures_of_one_image_come_together(batches, samples, augmentations: int) -> None:
    pair = siblings(samples[0])
    other = samples[1]
    built = batches([pair[0], other, pair[1]], augmentations=augmentations)
    assert len(built) == 2
    for _ in range(8):
        batch = built.draw(3)
        assert len(batch.features) == 3
        for position in range(3):
            members = [i for i, image in enumerate(batch.image_of.tolist()) if image == position]
            if len(members) == 1:
                assert batch.structures[members[0]] == 7
                continue
            whole, half = members
            assert [batch.structures[i] for i in members] == [3, 7]
            # Turned alike: the half stays within the whole.
            assert (batch.targets[half] <= batch.targets[whole]).all()
            assert 0 < batch.targets[half].sum() < batch.targets[whole].sum()


def test_all_structures_of_an_image_turn_alike(samples) -> None:
    whole, half = siblings(samples[0])
    for index in range(1, 12):
        one, two = variant(whole, index, seed=0), variant(half, index, seed=0)
        assert np.array_equal(one.image, two.image)
        assert not (two.mask & ~one.mask).any()


def test_variants_are_drawn_as_often_as_the_image_itself(batches, samples) -> None:
    drawn = Counter(images_of(batches(samples[:1], augmentations=3), 60))
    assert len(drawn) == 4
    assert min(drawn.values()) > 5


def test_without_augmentations_only_the_image_itself_is_drawn(batches, samples) -> None:
    assert len(set(images_of(batches(samples[:1]), 20))) == 1


def test_targets_and_boxes_are_in_the_models_pixels(batches, samples) -> None:
    batch = batches(samples).draw(2)
    assert batch.features.shape == (2, 3, 256, 256)
    assert batch.targets.shape == (2, 1, 256, 256)
    assert set(batch.targets.unique().tolist()) == {0.0, 1.0}
    assert batch.present.tolist() == [True, True]
    # 64 pixels wide become 256: the mask's box times four is where the target lies.
    for target, (x0, y0, x1, y1) in zip(batch.targets[:, 0], batch.boxes.tolist(), strict=True):
        rows, columns = torch.nonzero(target, as_tuple=True)
        seen = [columns.min(), rows.min(), columns.max(), rows.max()]
        np.testing.assert_allclose([x0, y0, x1, y1], [int(v) for v in seen], atol=5)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_small_structures_have_a_target_where_they_are(batches, samples, side) -> None:
    mask = np.zeros((900, 1200), np.bool_)
    mask[600 : 600 + side, 333 : 333 + side] = True
    small = replace(samples[0], image=np.zeros(mask.shape, np.uint8), mask=mask)
    (target,) = batches([small]).draw(1).targets[:, 0]
    rows, columns = torch.nonzero(target, as_tuple=True)
    assert 1 <= len(rows) <= 9
    centre = ((side - 1) / 2 + np.array([600, 333])) * 256 / 1200
    np.testing.assert_allclose([rows.float().mean(), columns.float().mean()], centre, atol=1)


def test_thin_structures_have_a_target_all_along(batches, samples) -> None:
    mask = np.zeros((900, 1200), np.bool_)
    along = np.arange(800)
    mask[50 + along // 2, 100 + along] = True
    thin = replace(samples[0], image=np.zeros(mask.shape, np.uint8), mask=mask)
    (target,) = batches([thin]).draw(1).targets[:, 0]
    columns = torch.nonzero(target, as_tuple=True)[1].unique()
    assert len(columns) >= 0.9 * 800 * 256 / 1200


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_simulated_boxes_shift_their_edges_within_the_image(batches, samples, jitter) -> None:
    built = batches(samples[:1], jitter=jitter)
    boxes = np.concatenate([built.draw(1).boxes.numpy() for _ in range(60)]) / 4
    tight = np.array([10, 12, 30, 32])
    shift = np.abs(boxes - tight).max(axis=0)
    assert (shift <= jitter * 20 + 1e-4).all()
    assert (shift >= jitter * 20 * 0.8).all()
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= 63).all()
    assert (boxes[:, 3] <= 47).all()


def test_absent_structures_are_drawn_with_an_empty_target(batches, samples, absent) -> None:
    batch = batches([samples[1], absent]).draw(2)
    there = dict(zip(batch.structures, batch.present.tolist(), strict=True))
    assert there == {7: True, 3: False}
    assert batch.targets[batch.structures.index(3)].sum() == 0
    assert batch.boxes.isfinite().all()


def fingerprint(batch) -> tuple[bytes, ...]:
    tensors = (batch.features, batch.image_of, batch.targets, batch.boxes, batch.present)
    return tuple(tensor.numpy().tobytes() for tensor in tensors)


def test_the_same_seed_draws_the_same_batches(batches, rare) -> None:
    def drawn(seed: int) -> list[tuple[bytes, ...]]:
        built = batches(rare, seed=seed, augmentations=1, jitter=0.2)
        return [fingerprint(built.draw(2)) for _ in range(6)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_the_order_in_which_samples_come_does_not_matter(batches, rare) -> None:
    one, two = batches(rare), batches(rare[::-1])
    assert all(fingerprint(one.draw(2)) == fingerprint(two.draw(2)) for _ in range(6))


@pytest.mark.parametrize("before", [0, 1, 5])
def test_drawing_goes_on_from_a_saved_state(batches, rare, before: int) -> None:
    import json

    built = batches(rare, seed=3, augmentations=1, jitter=0.2)
    for _ in range(before):
        built.draw(2)
    state = json.dumps(built.state())
    expected = [fingerprint(built.draw(2)) for _ in range(6)]
    again = batches(rare, seed=3, augmentations=1, jitter=0.2)
    again.load_state(json.loads(state))
    assert [fingerprint(again.draw(2)) for _ in range(6)] == expected
