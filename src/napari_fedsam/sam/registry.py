"""The promptable models by name: embedded, fetched with a checksum, from a folder, or a file.

A machine without internet access reads official checkpoints from the folder that the environment
variable `NAPARI_FEDSAM_MODELS` names.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from napari_fedsam.files import sha256_of
from napari_fedsam.sam.errors import ModelError
from napari_fedsam.sam.lite_medsam import LiteMedSam, embedded_checkpoint
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.sam.segment_anything_models import SegmentAnything
from napari_fedsam.settings import cache_folder

DEFAULT_MODEL = "lite_medsam"
OFFLINE_FOLDER_VARIABLE = "NAPARI_FEDSAM_MODELS"

Architecture = Literal["lite_medsam", "vit_b", "vit_l", "vit_h", "medsam_vit_b"]
ProgressCallback = Callable[[float], None]


@dataclass(frozen=True)
class ModelInfo:
    """One entry of the registry.

    Parameters
    ----------
    name : str
        What users type.
    label : str
        What menus show.
    architecture : str
        The network that the checkpoint fits.
    file_name : str
        The official checkpoint's file name.
    sha256 : str or None
        The checkpoint's checksum; None where its publisher gives none.
    url : str or None
        Where the checkpoint can be fetched; None for one that must be put in place by hand.
    """

    name: str
    label: str
    architecture: Architecture
    file_name: str
    sha256: str | None
    url: str | None


_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"

_MODELS = {
    info.name: info
    for info in (
        ModelInfo(
            DEFAULT_MODEL,
            "LiteMedSAM (embedded, fast)",
            "lite_medsam",
            "lite_medsam.pth",
            "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            None,
        ),
        ModelInfo(
            "vit_b",
            "SAM ViT-B (0.4 GB download)",
            "vit_b",
            "sam_vit_b_01ec64.pth",
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            f"{_SAM_URL}sam_vit_b_01ec64.pth",
        ),
        ModelInfo(
            "vit_l",
            "SAM ViT-L (1.2 GB download)",
            "vit_l",
            "sam_vit_l_0b3195.pth",
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            f"{_SAM_URL}sam_vit_l_0b3195.pth",
        ),
        ModelInfo(
            "vit_h",
            "SAM ViT-H (2.6 GB download)",
            "vit_h",
            "sam_vit_h_4b8939.pth",
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            f"{_SAM_URL}sam_vit_h_4b8939.pth",
        ),
        ModelInfo(
            "medsam",
            "MedSAM (ViT-B, from a file)",
            "medsam_vit_b",
            "medsam_vit_b.pth",
            None,
            None,
        ),
    )
}


def available_models() -> list[ModelInfo]:
    """Return every model of the registry, the default first."""
    return list(_MODELS.values())


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL, *, progress: ProgressCallback | None = None
) -> PromptableModel:
    """Load a promptable model in evaluation mode on the CPU.

    Parameters
    ----------
    name_or_path : str or Path
        A registry name, or the path of a checkpoint (`.pth`, `.pt` or `.safetensors`); the
        architecture of a file is recognised by the names and shapes of its tensors.
    progress : callable, optional
        Called with the fetched fraction (0..1) while a checkpoint is downloaded.

    Raises
    ------
    ModelError
        When the name is unknown, or the checkpoint cannot be fetched, verified or read.
    """
    info = _MODELS.get(str(name_or_path))
    if info is not None:
        return _build(info.architecture, info.name, _checkpoint_of(info, progress))
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        known = ", ".join(_MODELS)
        raise ModelError(
            f"There is no model named '{name_or_path}' and no such checkpoint file: give a path "
            f"or one of {known}."
        )
    return _build(None, path.stem, path)


def network_without_weights(name: str) -> PromptableModel:
    """Build a registered model's network for counting, large ones without any storage.

    Raises
    ------
    ModelError
        When the name is unknown.
    """
    if name not in _MODELS:
        raise ModelError(f"There is no model named '{name}': choose one of {', '.join(_MODELS)}.")
    architecture = _MODELS[name].architecture
    # LiteMedSAM's code computes with tensors while it is built.
    with torch.device("cpu" if architecture == "lite_medsam" else "meta"):
        return _network(architecture, name)


def _checkpoint_of(info: ModelInfo, progress: ProgressCallback | None) -> Path:
    if info.name == DEFAULT_MODEL:
        return _verified(embedded_checkpoint(), info)
    offline = os.environ.get(OFFLINE_FOLDER_VARIABLE)
    if offline:
        path = Path(offline).expanduser() / info.file_name
        if path.is_file():
            return _verified(path, info)
        if info.url is None:
            raise ModelError(f"{info.file_name} is not in {offline}: put the checkpoint there.")
    if info.url is None:
        raise ModelError(
            f"{info.label} cannot be fetched: put {info.file_name} into the folder that "
            f"{OFFLINE_FOLDER_VARIABLE} names, or give the checkpoint's path as the model."
        )
    return _fetched(info, progress)


def _fetched(info: ModelInfo, progress: ProgressCallback | None) -> Path:
    import pooch
    import requests

    folder = cache_folder() / "models"
    try:
        return Path(
            pooch.retrieve(
                info.url,
                known_hash=f"sha256:{info.sha256}",
                fname=info.file_name,
                path=folder,
                downloader=pooch.HTTPDownloader(
                    progressbar=_PoochProgress(progress) if progress else False
                ),
            )
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise ModelError(
            f"{info.file_name} could not be fetched into {folder} ({type(error).__name__}): check "
            f"the connection, or put the file into the folder that {OFFLINE_FOLDER_VARIABLE} names."
        ) from error


class _PoochProgress:
    """Pooch's progress-bar protocol (total, update, reset, close) over a plain callback."""

    def __init__(self, callback: ProgressCallback) -> None:
        self._callback = callback
        self._done = 0
        self.total = 0

    def update(self, count: int) -> None:
        self._done += count
        if self.total:
            self._callback(min(1.0, self._done / self.total))

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        self._callback(1.0)


def _verified(path: Path, info: ModelInfo) -> Path:
    if info.sha256 is not None and sha256_of(path) != info.sha256:
        raise ModelError(
            f"{path} is not the official {info.label} checkpoint (its SHA-256 differs): fetch it "
            "again, or give its path as the model to use it all the same."
        )
    return path


def _build(architecture: Architecture | None, name: str, path: Path) -> PromptableModel:
    state = _read_state(path)
    model = _network(architecture or _recognise(state, path), name)
    _check_finite(state, path)
    try:
        model.load_weights(state)
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not fit the {model.name} network (missing or misshapen tensors): give "
            "a checkpoint in the official layout."
        ) from error
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model


def _network(architecture: Architecture, name: str) -> LiteMedSam | SegmentAnything:
    if architecture == "lite_medsam":
        return LiteMedSam(name)
    if architecture == "medsam_vit_b":
        return SegmentAnything("vit_b", name, medsam=True)
    return SegmentAnything(architecture, name)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            weights: dict[str, torch.Tensor] = load_file(path)
            return weights
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a bad file
        raise ModelError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): give a .pth file of "
            "tensors or a .safetensors file."
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise ModelError(f"{path} holds no dictionary of tensors by name: give a model checkpoint.")
    return content


def _check_finite(state: dict[str, torch.Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ModelError(
                f"{path} has values in {name} that are no numbers: the training that made it "
                "failed, so give an earlier checkpoint."
            )


def _recognise(state: dict[str, torch.Tensor], path: Path) -> Architecture:
    """Tell the architecture from the tensors' names and shapes (MedSAM's file by its name)."""
    if "image_encoder.layers.0.blocks.0.conv1.c.weight" in state:
        return "lite_medsam"
    position = state.get("image_encoder.pos_embed")
    sizes: dict[int, Architecture] = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
    if position is None or position.ndim == 0 or position.shape[-1] not in sizes:
        raise ModelError(
            f"{path} is no checkpoint of LiteMedSAM or segment-anything (vit_b, vit_l, vit_h): "
            "give a file in one of these layouts."
        )
    if "medsam" in path.name.lower() and position.shape[-1] == 768:
        return "medsam_vit_b"
    return sizes[position.shape[-1]]
