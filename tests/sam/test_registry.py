"""Where models come from: embedded, fetched, from a folder, from a file."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from napari_fedsam.files import sha256_of
from napari_fedsam.sam import DEFAULT_MODEL, ModelError, available_models, load_model, registry
from napari_fedsam.sam.host_memory import keep_freed_memory
from napari_fedsam.sam.lite_medsam import LiteMedSam, embedded_checkpoint
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.sam.registry import OFFLINE_FOLDER_VARIABLE, ModelInfo


class RunsWhenUnpickled:
    """An object whose unpickling would create a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(OFFLINE_FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(registry, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "models"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Serve a folder on loopback: (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def entry(url: str | None, sha256: str | None) -> ModelInfo:
    return ModelInfo("lite_too", "LiteMedSAM too", "lite_medsam", "lite_too.pth", sha256, url)


def embedded_state() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(embedded_checkpoint(), weights_only=True)
    return state


def test_the_registry_lists_the_default_first_and_a_checksum_for_every_address() -> None:
    models = available_models()
    assert models[0].name == DEFAULT_MODEL == "lite_medsam"
    assert [info.name for info in models] == ["lite_medsam", "vit_b", "vit_l", "vit_h", "medsam"]
    for info in models:
        assert info.url is None or (info.sha256 is not None and info.url.endswith(info.file_name))


def test_the_default_is_ready_to_use(lite_medsam: LiteMedSam) -> None:
    assert isinstance(lite_medsam, PromptableModel)
    assert lite_medsam.name == "lite_medsam"
    assert lite_medsam.input_size == 256
    assert lite_medsam.prompt_kinds == {"box"}
    assert not lite_medsam.training
    assert not any(parameter.requires_grad for parameter in lite_medsam.parameters())
    for name, tensor in embedded_state().items():
        assert torch.equal(lite_medsam.state_dict()[name], tensor)


def test_attention_biases_are_those_of_the_checkpoint(lite_medsam: LiteMedSam) -> None:
    attentions = [m for m in lite_medsam.modules() if hasattr(m, "attention_biases")]
    assert attentions
    for attention in attentions:
        expected = attention.attention_biases[:, attention.attention_bias_idxs]
        assert torch.equal(attention.ab, expected)


def test_a_changed_embedded_checkpoint_is_refused(tmp_path, monkeypatch) -> None:
    other = tmp_path / "lite_medsam.pth"
    other.write_bytes(embedded_checkpoint().read_bytes()[:-1] + b"x")
    monkeypatch.setattr(registry, "embedded_checkpoint", lambda: other)
    with pytest.raises(ModelError, match="SHA-256"):
        load_model()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match="no model named 'vit_x'.*lite_medsam, vit_b"):
        load_model("vit_x")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04.", b"PK\x03\x04broken"])
def test_unreadable_files_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="broken.*is not a readable checkpoint"):
        load_model(path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    path.write_bytes(embedded_checkpoint().read_bytes()[:20_000_000])
    with pytest.raises(ModelError, match="half.pth is not a readable checkpoint"):
        load_model(path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_with_an_object_is_refused_and_nothing_runs(tmp_path, wrapped) -> None:
    trace = tmp_path / "it_ran"
    payload: dict[str, Any] = {"weight": torch.zeros(2), "object": RunsWhenUnpickled(trace)}
    path = tmp_path / "payload.pth"
    torch.save({"model": payload} if wrapped else payload, path)
    with pytest.raises(ModelError, match=r"payload\.pth is not a readable checkpoint"):
        load_model(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"a": 1},
        {"model": {"a": "text"}},
        {"a": torch.zeros(1), 5: torch.zeros(1)},
        3,
    ],
)
def test_a_file_without_a_dictionary_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="holds no dictionary of tensors"):
        load_model(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"weight": torch.zeros(2)},
        {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 512)},
        {"image_encoder.pos_embed": torch.tensor(1.0)},
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "resnet.pth")
    with pytest.raises(ModelError, match="is no checkpoint of LiteMedSAM or segment-anything"):
        load_model(tmp_path / "resnet.pth")


@pytest.mark.parametrize("change", ["missing", "misshapen"])
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, change: str) -> None:
    state = embedded_state()
    if change == "missing":
        del state["mask_decoder.iou_token.weight"]
    else:
        state["mask_decoder.iou_token.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match="does not fit"):
        load_model(tmp_path / "odd.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_with_values_that_are_no_numbers_is_refused(tmp_path, value: float) -> None:
    state = embedded_state()
    state["mask_decoder.iou_token.weight"][0, 7] = value
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(ModelError, match=r"diverged\.pth has values in mask_decoder\.iou_token"):
        load_model(tmp_path / "diverged.pth")


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_a_checkpoint_file_is_recognised(tmp_path: Path, wrapper: str | None) -> None:
    state = embedded_state()
    state["mask_decoder.iou_token.weight"] = torch.full_like(
        state["mask_decoder.iou_token.weight"], 0.5
    )
    path = tmp_path / "mine.pth"
    torch.save({wrapper: state, "epoch": 3} if wrapper else OrderedDict(state), path)
    model = load_model(str(path))
    assert isinstance(model, LiteMedSam)
    assert model.name == "mine"
    assert (model.state_dict()["mask_decoder.iou_token.weight"] == 0.5).all()


def test_a_safetensors_file_is_read(tmp_path: Path, lite_medsam: LiteMedSam) -> None:
    path = tmp_path / "lite.safetensors"
    save_file(embedded_state(), path)
    loaded = load_model(path)
    assert isinstance(loaded, LiteMedSam)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, lite_medsam.state_dict()[name])


def test_the_offline_folder_comes_first(tmp_path, monkeypatch) -> None:
    (tmp_path / "lite_too.pth").write_bytes(embedded_checkpoint().read_bytes())
    info = entry("http://127.0.0.1:9/lite_too.pth", sha256_of(embedded_checkpoint()))
    monkeypatch.setitem(registry._MODELS, info.name, info)
    monkeypatch.setenv(OFFLINE_FOLDER_VARIABLE, str(tmp_path))
    assert load_model("lite_too").name == "lite_too"


def test_the_offline_folder_is_verified_too(tmp_path, monkeypatch) -> None:
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"something else")
    monkeypatch.setenv(OFFLINE_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ModelError, match=r"sam_vit_b_01ec64\.pth is not the official.*SHA-256"):
        load_model("vit_b")


@pytest.mark.parametrize("folder", [None, "there"])
def test_a_model_without_an_address_says_where_to_put_it(tmp_path, monkeypatch, folder) -> None:
    if folder is not None:
        monkeypatch.setenv(OFFLINE_FOLDER_VARIABLE, str(tmp_path / folder))
    with pytest.raises(ModelError, match=r"medsam_vit_b\.pth.*put|put medsam_vit_b\.pth"):
        load_model("medsam")


def test_a_model_is_fetched_once_with_progress(served, private_cache, monkeypatch) -> None:
    folder, address = served
    (folder / "lite_too.pth").write_bytes(embedded_checkpoint().read_bytes())
    info = entry(address + "lite_too.pth", sha256_of(embedded_checkpoint()))
    monkeypatch.setitem(registry._MODELS, info.name, info)
    fractions: list[float] = []
    assert load_model("lite_too", progress=fractions.append).name == "lite_too"
    assert len(fractions) > 10
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 0.1
    assert fractions[-1] == 1.0
    assert sha256_of(private_cache / "lite_too.pth") == info.sha256
    (folder / "lite_too.pth").unlink()
    assert load_model("lite_too").name == "lite_too"


def test_a_fetched_file_with_another_checksum_is_refused(served, private_cache, monkeypatch):
    folder, address = served
    (folder / "lite_too.pth").write_bytes(b"something else")
    info = entry(address + "lite_too.pth", hashlib.sha256(b"the official one").hexdigest())
    monkeypatch.setitem(registry._MODELS, info.name, info)
    with pytest.raises(ModelError, match="could not be fetched"):
        load_model("lite_too")
    assert not (private_cache / "lite_too.pth").exists()


def test_a_missing_file_on_the_server_is_told(served, monkeypatch) -> None:
    info = entry(served[1] + "nowhere.pth", "0" * 64)
    monkeypatch.setitem(registry._MODELS, info.name, info)
    with pytest.raises(ModelError, match=r"could not be fetched.*HTTPError.*connection"):
        load_model("lite_too")


def test_keeping_freed_memory_says_whether_it_was_possible(monkeypatch) -> None:
    import platform

    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
