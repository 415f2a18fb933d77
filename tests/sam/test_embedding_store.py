"""Encoded images on disk: by content, bounded, private, and recomputed only where needed."""

import copy
import errno
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from napari_fedsam.sam import Predictor
from napari_fedsam.sam.embedding_store import EmbeddingStore
from napari_fedsam.sam.stored_encoding import encode_stored, is_stored

FEATURES = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "encoded")


def test_what_is_put_is_got_in_another_session(store: EmbeddingStore, tmp_path: Path) -> None:
    assert store.get("a") is None
    store.put("a", FEATURES)
    got = EmbeddingStore(tmp_path / "encoded").get("a")
    assert got is not None
    assert torch.equal(got, FEATURES.bfloat16())
    assert "a" in store
    assert "b" not in store


def test_the_least_recently_used_are_dropped_first(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path).put("probe", FEATURES)
    one = EmbeddingStore(tmp_path).size_bytes
    store = EmbeddingStore(tmp_path / "small", budget_bytes=int(3.5 * one))
    for age, name in enumerate("abc"):
        store.put(name, FEATURES)
        os.utime(tmp_path / "small" / f"{name}.zarr", (1000 + age, 1000 + age))
    store.get("a")
    store.put("d", FEATURES)
    assert [name in store for name in "abcd"] == [True, False, True, True]
    assert store.size_bytes <= 3.5 * one


@pytest.mark.parametrize("damage", ["missing chunk", "broken header", "garbage", "one bit"])
def test_a_damaged_entry_counts_as_missing(store, tmp_path: Path, damage: str) -> None:
    store.put("a", FEATURES)
    entry = tmp_path / "encoded" / "a.zarr"
    chunk = next(path for path in entry.rglob("*") if path.is_file() and path.suffix != ".json")
    if damage == "broken header":
        (entry / "zarr.json").write_text("{")
    elif damage == "garbage":
        chunk.write_bytes(b"garbage")
    elif damage == "one bit":
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 1
        chunk.write_bytes(content)
    else:
        chunk.unlink()
    assert store.get("a") is None
    store.put("a", FEATURES)
    assert store.get("a") is not None


def test_an_entry_that_cannot_be_read_this_time_is_kept(store, monkeypatch, caplog) -> None:
    import zarr

    store.put("a", FEATURES)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(zarr, "open_array", refuse)
        assert store.get("a") is None
    assert "could not be read this time" in caplog.text
    assert store.get("a") is not None


def test_what_a_killed_session_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    names = [f".{digit * 64}-0123abcd" for digit in "ab"]
    old, fresh = (tmp_path / name for name in names)
    for hidden in (old, fresh):
        (hidden / "c").mkdir(parents=True)
        (hidden / "c" / "0").write_bytes(b"features")
    an_hour_ago = time.time() - 3601
    os.utime(old, (an_hour_ago, an_hour_ago))
    EmbeddingStore(tmp_path).put("a", FEATURES)
    assert not old.exists()
    assert fresh.exists()


def test_half_written_entries_are_named_as_the_deletion_of_cases_expects(
    tmp_path: Path, monkeypatch
) -> None:
    from napari_fedsam.cases import deletion

    names: list[str] = []

    def note(folder: Path, *_: object, **__: object) -> None:
        names.append(folder.name)
        raise OSError

    monkeypatch.setattr("zarr.create_array", note)
    EmbeddingStore(tmp_path).put("0123456789abcdef" * 4, FEATURES)
    assert len(names) == 1
    assert deletion._FEATURE_ENTRY.fullmatch(names[0])


def test_a_folder_that_cannot_be_written_does_not_stop_anything(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    store = EmbeddingStore(tmp_path / "file" / "encoded")
    store.put("a", FEATURES)
    assert store.get("a") is None
    assert "could not be kept" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_the_folder_is_private(store, tmp_path: Path) -> None:
    store.put("a", FEATURES)
    assert (tmp_path / "encoded").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def model(lite_medsam):
    """With a frozen prefix: only the last stage is to be trained."""
    model = copy.deepcopy(lite_medsam).requires_grad_(False)
    model.image_encoder.neck.requires_grad_(True)
    return model


@pytest.fixture
def stages_run(monkeypatch) -> list[str]:
    """Names of the stages that run."""
    from napari_fedsam.sam import fast_tiny_vit

    ran: list[str] = []
    for name in ("_MBConv", "_Neck"):
        kind = getattr(fast_tiny_vit, name)
        call = kind.__call__

        def counting(self, x, call=call, name=name):
            ran.append(name)
            return call(self, x)

        monkeypatch.setattr(kind, "__call__", counting)
    return ran


def test_an_image_is_encoded_once_and_a_round_recomputes_the_suffix(
    store, model, scene, stages_run
) -> None:
    predictor = Predictor(model, bf16=False)
    first = encode_stored(predictor, scene.image, store)
    assert stages_run == ["_MBConv", "_MBConv", "_Neck"]
    again = encode_stored(Predictor(copy.deepcopy(model), bf16=False), scene.image, store)
    assert stages_run == ["_MBConv", "_MBConv", "_Neck"]
    assert torch.equal(again.features, first.features)
    with torch.no_grad():
        model.image_encoder.neck[3].weight.mul_(2)
    assert not is_stored(predictor, scene.image, store)
    changed = encode_stored(predictor, scene.image, store)
    assert stages_run == ["_MBConv", "_MBConv", "_Neck", "_Neck"]
    expected = Predictor(model, bf16=False).encode(scene.image).features
    assert (changed.features - expected).norm() / expected.norm() < 0.02
    assert (changed.features - first.features).norm() / first.features.norm() > 0.3


def test_another_image_recipe_or_base_model_is_encoded_anew(store, model, scene) -> None:
    predictor = Predictor(model, bf16=False)
    encode_stored(predictor, scene.image, store, identity="recipe 1")
    assert is_stored(predictor, scene.image, store, identity="recipe 1")
    assert not is_stored(predictor, scene.image, store, identity="recipe 2")
    other = scene.image.copy()
    other[0, 0] ^= 1
    assert not is_stored(predictor, other, store, identity="recipe 1")
    with torch.no_grad():
        model.image_encoder.patch_embed.seq[0].c.weight.mul_(1.1)
    assert not is_stored(predictor, scene.image, store, identity="recipe 1")


def test_encoding_can_wait_between_stages(store, model, scene) -> None:
    calls: list[int] = []
    encode_stored(Predictor(model, bf16=False), scene.image, store, between=lambda: calls.append(1))
    assert len(calls) == len(model.encoder_stages())


@pytest.mark.parametrize("trained", ["neck", "everything"])
def test_an_embedding_that_is_read_back_is_the_one_that_was_made(
    store, model, scene, trained: str
) -> None:
    model.requires_grad_(trained == "everything")
    model.image_encoder.neck.requires_grad_(True)
    predictor = Predictor(model, bf16=False)
    made, read = (encode_stored(predictor, scene.image, store) for _ in range(2))
    assert is_stored(predictor, scene.image, store)
    assert torch.equal(made.features, read.features)


def test_an_embedding_does_not_depend_on_whether_its_prefix_was_stored(store, model, scene) -> None:
    predictor = Predictor(model, bf16=False)
    first = encode_stored(predictor, scene.image, store, identity="recipe 1")
    second = encode_stored(predictor, scene.image, store, identity="recipe 2")
    assert torch.equal(first.features, second.features)
