"""The encoder's frozen prefix (`sam.encoder_split`), computed once per image and variant."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_fedsam.files import atomic_path, make_private_folder
from napari_fedsam.sam.encoder_split import EncoderSplit
from napari_fedsam.sam.fast_encoder import add_details
from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.sam.protocol import PromptableModel

_log = logging.getLogger(__name__)

# Share of the budget that what a folder already holds may take.
_KEPT_SHARE = 0.75

# Share of what was free in a folder that is filled before it is measured anew.
_UNMEASURED_SHARE = 1 / 8


class FeatureCache:
    """Prefix outputs, in memory or in a folder that outlives the process, within a budget.

    What does not fit is computed anew each time it is asked for. Files hold bfloat16 features as
    safetensors; a damaged one counts as missing. Opening a folder makes room for new images: what
    was not used for longest goes until a quarter of the budget is free. (Within a run nothing goes,
    for training comes back to every image, and to that which was not used for longest first.)

    Parameters
    ----------
    folder : Path, optional
        Created private, for features can be turned back into images; memory when not given.
    budget_bytes : int
        For all features together, also where several processes share the folder.
    """

    def __init__(self, folder: Path | None = None, *, budget_bytes: int = 2 * 1024**3) -> None:
        self._folder = None if folder is None else make_private_folder(folder)
        self._memory: dict[str, torch.Tensor] = {}
        self._budget = budget_bytes
        kept = 0 if folder is None else _keep_newest(folder, budget_bytes * _KEPT_SHARE)
        self._free = self._measured_free = budget_bytes - kept

    def get(self, key: str) -> torch.Tensor | None:
        """Return a cached output of shape (1, ...), or None."""
        if self._folder is None:
            return self._memory.get(key)
        path = self._folder / f"{key}.safetensors"
        try:
            features: torch.Tensor = load_file(path)["features"]
            os.utime(path)
        except (OSError, SafetensorError, KeyError):
            return None
        return features

    def put(self, key: str, features: torch.Tensor) -> None:
        """Keep an output as bfloat16, if there is room."""
        kept = features.to("cpu", torch.bfloat16).contiguous()
        size = kept.numel() * kept.element_size()
        if not self._has_room_for(size):
            return
        self._free -= size
        if self._folder is None:
            self._memory[key] = kept
            return
        try:
            with atomic_path(self._folder / f"{key}.safetensors") as temporary:
                save_file({"features": kept}, temporary)
        except (OSError, SafetensorError) as error:
            if not self._folder.is_dir():
                # A case was deleted meanwhile: what is still being trained on is not to be kept.
                return
            # Training goes on without: the features are computed anew.
            _log.warning("Encoder features could not be kept in %s: %s", self._folder, error)

    def _has_room_for(self, size: int) -> bool:
        if self._folder is not None and size <= self._free:
            since = self._measured_free - self._free
            if since + size > self._measured_free * _UNMEASURED_SHARE:
                # Other processes fill the folder, too.
                kept = sum(known.st_size for known, _ in _files(self._folder))
                self._free = self._measured_free = self._budget - kept
        return size <= self._free


def _files(folder: Path) -> list[tuple[os.stat_result, Path]]:
    files = []
    for path in folder.glob("*.safetensors"):
        # Another process may remove files, too.
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat(), path))
    return files


def _keep_newest(folder: Path, budget_bytes: float) -> int:
    """Remove what was used before all else until the budget is kept; return the bytes left."""
    kept = 0
    for known, path in sorted(_files(folder), key=lambda file: file[0].st_mtime_ns, reverse=True):
        if kept + known.st_size <= budget_bytes:
            kept += known.st_size
        else:
            path.unlink(missing_ok=True)
    return kept


class TrainingEncoder(Protocol):
    """An image encoder in two halves, of which the first is not trained.

    With `plain`, the decoder is to be segment-anything's own code, too.
    """

    plain: bool
    device: torch.device
    bf16: bool
    input_size: int

    def prefix(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the first half's output for an image of shape (H, W[, 3])."""
        ...

    def pixels(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the encoder's input (1, 3, S, S) for an image of shape (H, W[, 3])."""
        ...

    def suffix(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Run the second half to the embedding (B, 256, h, w), which has the pixels' details."""
        ...


class PlainEncoder:
    """The whole encoder in float32 at every step, for comparison.

    Parameters
    ----------
    model : PromptableModel
    """

    def __init__(self, model: PromptableModel) -> None:
        self._model = model
        self.plain = True
        self.device = next(model.mask_decoder.parameters()).device
        self.bf16 = False
        self.input_size = model.input_size

    def pixels(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the encoder's input."""
        return self._model.preprocess(image).to(self.device)

    def prefix(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the encoder's input, too."""
        return self.pixels(image)

    def suffix(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Run the encoder."""
        return add_details(self._model, self._model.image_encoder(features), pixels)


class CachedEncoder:
    """An image encoder that computes the frozen prefix of each image only once.

    Parameters
    ----------
    model : PromptableModel
    cache : FeatureCache
    """

    def __init__(self, model: PromptableModel, cache: FeatureCache) -> None:
        self._model = model
        self._split = EncoderSplit(model)
        self._cache = cache
        self.plain = False
        self.device = self._split.device
        self.bf16 = self._split.bf16
        self.input_size = model.input_size

    def prefix(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the frozen stages' output for an image of shape (H, W[, 3]), float32."""
        if not self._split.has_prefix:
            return self.pixels(image)
        key = self._split.key(image)
        features = self._cache.get(key)
        if features is None:
            # Laid out as it will come out of the cache, so that later sums are the same to the bit.
            computed = self._split.prefix(self.pixels(image))
            features = computed.to(torch.bfloat16).contiguous()
            self._cache.put(key, features)
        return features.to(self.device, torch.float32)

    def pixels(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the encoder's input (1, 3, S, S) for an image of shape (H, W[, 3])."""
        return self._model.preprocess(image).to(self.device)

    def suffix(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Run the trainable stages to the embedding (B, 256, h, w), bfloat16 where it gains."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self._split.suffix(features, pixels)

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an image for a `Predictor` of the same model."""
        embedding = self.suffix(self.prefix(image), self.pixels(image))
        return ImageEmbedding(embedding.float(), (image.shape[0], image.shape[1]))
