"""The encoded slices of the open scan, the least recently used forgotten first."""

from collections import OrderedDict
from collections.abc import Hashable

from napari_fedsam.sam.prediction import ImageEmbedding

CAPACITY = 24
"""Slices kept; one takes 4 MiB (LiteMedSAM and segment-anything alike)."""


class EmbeddingCache:
    """A small LRU of image embeddings.

    Parameters
    ----------
    capacity : int
        How many are kept, 1 or more.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[Hashable, ImageEmbedding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> ImageEmbedding | None:
        """Return an embedding and mark it as used, or None."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: Hashable, embedding: ImageEmbedding) -> None:
        """Keep an embedding; the least recently used beyond the capacity are dropped."""
        self._kept[key] = embedding
        self._kept.move_to_end(key)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
