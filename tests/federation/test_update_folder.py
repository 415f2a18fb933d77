import tracemalloc

import numpy as np
import pytest
import torch
from flwr.server.strategy.aggregate import aggregate_krum, aggregate_median, aggregate_trimmed_avg
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.federation import update_folder
from napari_fedsam.federation.aggregation import combine, site_weights
from napari_fedsam.federation.update_folder import FlatLayout, UpdateFolder
from napari_fedsam.personalization.federation_options import FederationOptions

SPEC = {"b": ((2, 3), "torch.float32"), "a": ((), "torch.float32"), "c": ((4,), "torch.float16")}


def test_parameters_come_back_from_a_vector_in_their_shapes_and_types():
    layout = FlatLayout(SPEC)
    state = {
        name: torch.randn(shape).to(getattr(torch, kind.removeprefix("torch.")))
        for name, (shape, kind) in SPEC.items()
    }
    vector = layout.flatten(state)
    assert vector.shape == (layout.size,) == (11,)
    again = layout.unflatten(vector)
    assert list(again) == ["a", "b", "c"]
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert all(again[name].dtype == state[name].dtype for name in state)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(update_folder, "_PIECE_VALUES", 12)


def folder_of(path, updates):
    folder = UpdateFolder(path, updates.shape[1])
    for number, update in enumerate(updates):
        folder.add(str(number), update)
    return folder


@pytest.mark.usefixtures("small_pieces")
def test_norms_and_inner_products_are_those_of_the_whole(tmp_path):
    updates = np.random.default_rng(0).normal(size=(5, 101)).astype(np.float32)
    folder = folder_of(tmp_path / "u", updates)
    exact = updates.astype(float)
    assert list(folder.norms.values()) == pytest.approx(np.linalg.norm(exact, axis=1))
    assert folder.inner_products(folder.sites) == pytest.approx(exact @ exact.T)
    folder.discard("3")
    assert folder.sites == ("0", "1", "2", "4")
    folder.remove()
    assert not (tmp_path / "u").exists()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("options", "flower"),
    [
        ({"aggregation": "median"}, aggregate_median),
        (
            {"aggregation": "trimmed_mean", "trimmed_share": 0.2},
            lambda results: aggregate_trimmed_avg(results, 0.2),
        ),
        (
            {"aggregation": "krum", "malicious_sites": 2},
            lambda results: aggregate_krum(results, 2, 5),
        ),
    ],
)
def test_piece_by_piece_is_what_flower_computes_at_once(tmp_path, options, flower):
    updates = np.random.default_rng(1).normal(size=(7, 101)).astype(np.float32)
    folder = folder_of(tmp_path / "u", updates)
    weights = site_weights(dict.fromkeys(folder.sites, 1), FederationOptions())
    combined = combine(folder, weights, FederationOptions(**options))
    (expected,) = flower([([update], 1) for update in updates])
    assert combined == pytest.approx(expected, abs=1e-6)


@given(
    cases=st.lists(st.integers(1, 10**6), min_size=1, max_size=20),
    cap=st.none() | st.integers(1, 1000),
)
def test_weights_sum_to_one_and_no_site_weighs_more_than_the_cap_allows(cases, cap):
    named = {str(number): count for number, count in enumerate(cases)}
    weights = site_weights(named, FederationOptions(case_cap=cap))
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weight > 0 for weight in weights.values())
    ratio = max(weights.values()) / min(weights.values())
    assert ratio <= (cap or max(cases)) * (1 + 1e-9)


@pytest.mark.parametrize("sites", [1, 3, 50])
def test_what_is_in_memory_at_once_does_not_grow_with_the_sites(tmp_path, monkeypatch, sites):
    monkeypatch.setattr(update_folder, "_PIECE_VALUES", 1000)
    updates = np.arange(sites * 2500, dtype=np.float32).reshape(sites, 2500)
    folder = folder_of(tmp_path / "u", updates)
    together = np.zeros_like(updates)
    for piece, parts in folder.pieces(folder.sites):
        assert sum(part.size for part in parts) <= 1000
        # Copies, and no views that would keep a whole update alive.
        assert all(part.base is None for part in parts)
        together[:, piece] = parts
    assert np.array_equal(together, updates)


def test_the_memory_of_an_average_does_not_grow_with_the_sites(tmp_path, monkeypatch):
    size = 400_000
    monkeypatch.setattr(update_folder, "_PIECE_VALUES", 200_000)
    options = FederationOptions()

    def peak(sites):
        random = np.random.default_rng(0)
        folder = UpdateFolder(tmp_path / str(sites), size)
        for number in range(sites):
            folder.add(str(number), random.random(size, dtype=np.float32))
        weights = site_weights(dict.fromkeys(folder.sites, 1), options)
        tracemalloc.start()
        combine(folder, weights, options)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(5), peak(50)
    assert many < 1.2 * few
