"""Encoding that reads and writes an `EmbeddingStore`, and recomputes only what a round changed."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from napari_fedsam.sam.embedding_store import EmbeddingStore
from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.sam.predictor import Predictor


def encode_stored(
    predictor: Predictor,
    image: NDArray[np.uint8],
    store: EmbeddingStore,
    *,
    identity: str = "",
    between: Callable[[], None] | None = None,
) -> ImageEmbedding:
    """Encode an image, or take its embedding or its frozen prefix from the store.

    Parameters
    ----------
    predictor : Predictor
    image : uint8 array of shape (H, W) or (H, W, 3)
    store : EmbeddingStore
    identity : str
        What the encoder's output depends on beside its weights, such as a recipe's hash.
    between : callable, optional
        Called between stages; it may wait.

    Raises
    ------
    PromptError
        When the array is no such image.
    """
    shape = image.shape[0], image.shape[1]
    encoder = predictor.encoder
    whole = _key(encoder.content[0], image, identity)
    features = store.get(whole)
    if features is not None:
        return ImageEmbedding(features.float().to(predictor.device), shape)
    if encoder.frozen_stages == 0:
        embedding = encoder(_input(predictor, image), between)
    else:
        pixels = _input(predictor, image)
        # The frozen stages do not depend on the recipe, only on the base model's weights.
        prefix = _key(encoder.content[1], image, "")
        kept = store.get(prefix)
        if kept is None:
            kept = encoder.prefix(pixels, between)
            store.put(prefix, kept)
        embedding = encoder.suffix(kept.to(predictor.device), pixels, between)
    store.put(whole, embedding)
    return ImageEmbedding(embedding, shape)


def is_stored(
    predictor: Predictor, image: NDArray[np.uint8], store: EmbeddingStore, *, identity: str = ""
) -> bool:
    """Whether `encode_stored` has nothing to compute."""
    return _key(predictor.encoder.content[0], image, identity) in store


def _input(predictor: Predictor, image: NDArray[np.uint8]) -> torch.Tensor:
    return predictor.model.preprocess(image).to(predictor.device)


def _key(content: str, image: NDArray[np.uint8], identity: str) -> str:
    digest = hashlib.sha256(f"{content} {identity} {image.shape} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
