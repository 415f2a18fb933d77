"""Encoding that reads and writes an `EmbeddingStore`, and recomputes only what a round changed."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.sam.embedding_store import STORED, EmbeddingStore
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

    What is encoded is rounded as the store rounds it, so that an image answers alike whether or
    not it was kept.

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
    if features is None:
        pixels = predictor.model.preprocess(image).to(predictor.device)
        if encoder.frozen_stages == 0:
            embedding = encoder(pixels, between)
        else:
            # The frozen stages do not depend on the recipe, only on the base model's weights.
            prefix = _key(encoder.content[1], image, "")
            kept = store.get(prefix)
            if kept is None:
                kept = encoder.prefix(pixels, between).to(STORED)
                store.put(prefix, kept)
            embedding = encoder.suffix(kept.to(predictor.device), pixels, between)
        features = embedding.to(STORED)
        store.put(whole, features)
    return ImageEmbedding(features.float().to(predictor.device), shape)


def is_stored(
    predictor: Predictor, image: NDArray[np.uint8], store: EmbeddingStore, *, identity: str = ""
) -> bool:
    """Whether `encode_stored` has nothing to compute."""
    return _key(predictor.encoder.content[0], image, identity) in store


def _key(content: str, image: NDArray[np.uint8], identity: str) -> str:
    digest = hashlib.sha256(f"{content} {identity} {image.shape} ".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
