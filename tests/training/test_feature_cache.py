"""The encoder's frozen prefix, computed once and kept."""

import copy
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_fedsam.sam import Predictor, encoder_split
from napari_fedsam.sam.encoder_split import EncoderSplit
from napari_fedsam.sam.fast_encoder import add_details
from napari_fedsam.sam.preprocessing import PixelPreprocessing
from napari_fedsam.training import feature_cache
from napari_fedsam.training.feature_cache import (
    CachedEncoder,
    FeatureCache,
    PlainEncoder,
)


@pytest.fixture
def pair(personalise, samples):
    model = personalise()
    return model, EncoderSplit(model), model.preprocess(samples[0].image)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_prefix_and_suffix_are_the_encoder(personalise, samples, blocks: int) -> None:
    from napari_fedsam.personalization import MethodOptions

    model = personalise(options=MethodOptions(blocks=blocks))
    model.load_local({k: torch.full_like(v, 0.05) for k, v in model.local_state().items()})
    split = EncoderSplit(model, bf16=False)
    pixels = model.preprocess(samples[0].image)
    with torch.no_grad():
        torch.testing.assert_close(
            split.suffix(split.prefix(pixels), pixels),
            add_details(model, model.image_encoder(pixels), pixels),
            atol=1e-4,
            rtol=1e-4,
        )


def test_the_prefix_holds_all_that_is_frozen_and_nothing_that_learns(pair) -> None:
    model, split, pixels = pair
    assert not split.prefix(pixels).requires_grad
    stages = model.encoder_stages()
    cut = len(split._prefix)
    assert not any(p.requires_grad for stage in stages[:cut] for p in stage.parameters())
    assert any(p.requires_grad for p in stages[cut].parameters())


@pytest.mark.parametrize(
    ("network", "method"),
    [
        ("personalise", "pfedsam"),
        ("personalise", "local_norm"),
        ("small", "pfedsam"),
        ("small", "fedmsa"),
        ("small", "fedsam"),
        ("small", "local_norm"),
    ],
)
def test_gradients_of_the_suffix_are_those_of_the_encoder(
    request, samples, network: str, method: str
) -> None:
    model = request.getfixturevalue(network)(method=method)
    random = torch.Generator().manual_seed(5)

    def varied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Inserted modules begin at zero, where most have no gradient.
        return {k: v + 0.02 * torch.randn(v.shape, generator=random) for k, v in state.items()}

    model.load_shared(varied(model.shared_state()))
    model.load_local(varied(model.local_state()))
    split = EncoderSplit(model, bf16=False)
    pixels = model.preprocess(samples[0].image)
    learning = [p for p in model.image_encoder.parameters() if p.requires_grad]
    if model.detail_branch is not None:
        learning += list(model.detail_branch.parameters())
    weights = torch.randn(1, 256, 64, 64, generator=random)
    with model.attention_biases_in_training():
        found, expected = (
            torch.autograd.grad((embedding * weights).mean(), learning)
            for embedding in (
                split.suffix(split.prefix(pixels), pixels),
                add_details(model, model.image_encoder(pixels), pixels),
            )
        )
    whole = torch.stack([gradient.norm() for gradient in expected]).norm()
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.norm() > 0
        assert (mine - theirs).norm() < 1e-3 * theirs.norm() + 1e-6 * whole


def test_under_fedsam_nothing_is_left_to_cache(small, samples) -> None:
    cache = FeatureCache()
    model = small(method="fedsam")
    encoder = CachedEncoder(model, cache)
    assert torch.equal(encoder.prefix(samples[0].image), model.preprocess(samples[0].image))
    assert not cache._memory


def test_keys_tell_images_shapes_and_cuts_apart(personalise, pair, samples) -> None:
    from napari_fedsam.personalization import MethodOptions

    _, split, _ = pair
    image = samples[0].image
    other = image.copy()
    other[0, 0] += 1
    keys = {
        split.key(image),
        split.key(other),
        split.key(image.reshape(64, 48)),
        split.key(samples[1].image),
        EncoderSplit(personalise(options=MethodOptions(blocks=3))).key(image),
    }
    assert len(keys) == 5
    assert split.key(image.copy()) == split.key(image)


def test_keys_tell_weights_and_precisions_apart(personalise, samples) -> None:
    image = samples[0].image
    model = personalise()
    keys = [EncoderSplit(model, bf16=bf16).key(image) for bf16 in (True, False)]
    # The decoder and what is trained do not count, nor does a new model of the same weights.
    model.load_shared({k: v + 1 for k, v in model.shared_state().items()})
    assert EncoderSplit(personalise(), bf16=False).key(image) == keys[1]
    assert EncoderSplit(model, bf16=False).key(image) == keys[1]
    frozen = next(p for p in model.image_encoder.parameters() if not p.requires_grad)
    with torch.no_grad():
        frozen.add_(1)
    try:
        keys.append(EncoderSplit(model, bf16=False).key(image))
    finally:
        with torch.no_grad():
            frozen.sub_(1)
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "prepared",
    [
        PixelPreprocessing(256, (123.0, 116.0, 103.0), (58.0, 57.0, 57.0)),
        PixelPreprocessing(256, (120.0, 116.0, 103.0), (58.0, 57.0, 57.0)),
        PixelPreprocessing(512),
    ],
)
def test_keys_tell_ways_to_prepare_images_apart(small_base, samples, prepared) -> None:
    other = copy.copy(small_base)
    other.preprocessing = prepared
    split, changed = EncoderSplit(small_base, bf16=False), EncoderSplit(other, bf16=False)
    assert split.key(samples[0].image) != changed.key(samples[0].image)


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features" if request.param == "disk" else None)


def test_what_is_put_is_got_as_bfloat16(cache: FeatureCache) -> None:
    features = torch.randn(1, 6, 5)
    assert cache.get("a") is None
    cache.put("a", features)
    got = cache.get("a")
    assert got is not None
    assert torch.equal(got, features.bfloat16())
    assert cache.get("b") is None


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_the_budget_is_kept(tmp_path: Path, place: str) -> None:
    cache = FeatureCache(tmp_path if place == "disk" else None, budget_bytes=25_000)
    for name in "abc":
        cache.put(name, torch.zeros(1, 5_000))  # 10 000 bytes each, and a head of some 100
    assert [cache.get(name) is not None for name in "abc"] == [True, True, False]
    cache.put("small", torch.zeros(1, 2_000))
    assert cache.get("small") is not None


def test_two_that_fill_a_folder_at_once_share_its_budget(tmp_path: Path) -> None:
    caches = [FeatureCache(tmp_path, budget_bytes=200_000) for _ in range(2)]
    for number in range(50):
        for name, cache in zip("ab", caches, strict=True):
            cache.put(f"{name}{number}", torch.zeros(1, 5_000))
    taken = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 180_000 < taken <= 200_000


def test_a_folder_is_seldom_measured(tmp_path: Path, monkeypatch) -> None:
    measured = []
    files = feature_cache._files
    monkeypatch.setattr(feature_cache, "_files", lambda f: measured.append(f) or files(f))
    cache = FeatureCache(tmp_path, budget_bytes=1_000_000)
    for number in range(300):
        cache.put(f"{number}", torch.zeros(1, 5_000))
    # Once at the beginning, then after ever less, and not at all once it is full.
    assert len(measured) < 40
    assert len(list(tmp_path.iterdir())) > 95


def test_files_outlive_the_process_and_count_towards_the_budget(tmp_path: Path) -> None:
    features = torch.randn(1, 500)
    FeatureCache(tmp_path).put("a", features)
    again = FeatureCache(tmp_path, budget_bytes=1500)
    got = again.get("a")
    assert got is not None
    assert torch.equal(got, features.bfloat16())
    again.put("b", features)
    assert again.get("b") is None


def test_opening_makes_room_by_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    for age, name in enumerate("abcd"):
        cache.put(name, torch.zeros(1, 500))
        os.utime(tmp_path / f"{name}.safetensors", (1000 + age, 1000 + age))
    size = (tmp_path / "a.safetensors").stat().st_size
    assert cache.get("a") is not None
    again = FeatureCache(tmp_path, budget_bytes=4 * size)
    assert [again.get(name) is not None for name in "abcd"] == [True, False, True, True]
    again.put("new", torch.zeros(1, 400))
    assert again.get("new") is not None


def test_nothing_is_kept_once_the_folder_was_taken_away(tmp_path: Path, caplog) -> None:
    cache = FeatureCache(tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    cache.put("a", torch.zeros(1, 5))
    assert cache.get("a") is None
    assert not (tmp_path / "cache").exists()
    assert not caplog.records


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_the_folder_is_private(tmp_path: Path) -> None:
    FeatureCache(tmp_path / "features")
    assert (tmp_path / "features").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_file_counts_as_missing_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("a", torch.ones(1, 3))
    (tmp_path / "a.safetensors").write_bytes(content)
    assert cache.get("a") is None
    cache.put("a", torch.ones(1, 3))
    assert cache.get("a") is not None


def test_a_full_disk_does_not_stop_training(tmp_path, files_limited_to, caplog) -> None:
    cache = FeatureCache(tmp_path)
    with files_limited_to(100):
        cache.put("a", torch.ones(1, 1000))
    assert cache.get("a") is None
    assert not list(tmp_path.iterdir())
    assert "could not be kept" in caplog.text


def test_half_written_files_do_not_count(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("a", torch.ones(1, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert np.isfinite(cache.get("a").float().numpy()).all()  # type: ignore[union-attr]


def test_an_image_is_encoded_once_and_close_to_the_predictors_way(
    personalise, samples, monkeypatch
) -> None:
    # Without the rounding of bfloat16 products, only that of the stored features is left.
    monkeypatch.setattr(encoder_split, "has_fast_bf16", lambda _: False)
    model, cache = personalise(), FeatureCache()
    image = samples[0].image
    mine = CachedEncoder(model, cache).encode(image)
    theirs = Predictor(model, bf16=False).encode(image)
    assert mine.image_shape == theirs.image_shape
    assert mine.features.dtype == torch.float32
    apart = (mine.features - theirs.features).norm() / theirs.features.norm()
    assert apart < 0.02

    def never(*_: object) -> torch.Tensor:
        raise AssertionError("computed again")

    monkeypatch.setattr(EncoderSplit, "prefix", never)
    again = CachedEncoder(model, cache).encode(image)
    assert torch.equal(again.features, mine.features)


def test_the_plain_encoder_is_the_whole_encoder(small, samples) -> None:
    model = small()
    model.load_local({k: torch.full_like(v, 0.05) for k, v in model.local_state().items()})
    encoder = PlainEncoder(model)
    with torch.no_grad():
        pixels = encoder.prefix(samples[0].image)
        assert torch.equal(pixels, model.preprocess(samples[0].image))
        expected = add_details(model, model.image_encoder(pixels), pixels)
        assert not torch.equal(expected, model.image_encoder(pixels))
        assert torch.equal(encoder.suffix(pixels, encoder.pixels(samples[0].image)), expected)
    assert not encoder.bf16
