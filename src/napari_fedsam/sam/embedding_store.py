"""Encoded images on disk, shared between sessions and bounded in size.

Every entry is a Zarr array of bfloat16 bits, compressed in chunks, under the SHA-256 of what it was
made from. It appears complete or not at all. What was not used for longest is dropped first.
What a session that was killed left half written is hidden, and removed once it is old.
"""

import logging
import os
import secrets
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from napari_fedsam.files import make_private_folder

_log = logging.getLogger(__name__)
_CHUNK_CHANNELS = 64

STORED = torch.bfloat16
"""What tensors are rounded to."""

_ABANDONED_SECONDS = 3600.0
"""A hidden folder of this age is not being written any more."""


class EmbeddingStore:
    """Tensors by key in a folder that only its owner can read.

    Features can be turned back into images: the folder is as private as the scans.

    Parameters
    ----------
    folder : Path
        Created when needed.
    budget_bytes : int
        For all entries together.
    """

    def __init__(self, folder: Path, *, budget_bytes: int = 4 * 1024**3) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._used: int | None = None

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_dir()

    def get(self, key: str) -> torch.Tensor | None:
        """Return an entry as bfloat16, or None; a damaged one counts as missing."""
        import zarr

        path = self._path(key)
        if not path.is_dir():
            return None
        try:
            array = zarr.open_array(path, mode="r")
            if array.nchunks_initialized != array.nchunks:
                # Zarr would fill what is missing with zeros.
                raise ValueError("a part of it is missing")
            bits = np.asarray(array[...])
            os.utime(path)
        except (ValueError, TypeError, AttributeError) as error:
            # What Zarr raises for a header or a checksum that is wrong.
            _log.warning("An encoded slice is damaged and is dropped: %s", error)
            shutil.rmtree(path, ignore_errors=True)
            return None
        except Exception as error:  # noqa: BLE001  # too little memory, too many open files
            _log.warning("An encoded slice could not be read this time: %s", error)
            return None
        return torch.from_numpy(bits.view(np.int16)).view(STORED)

    def put(self, key: str, features: torch.Tensor) -> None:
        """Keep a tensor of shape (1, C, ...) as bfloat16; a full disk only means that it is not."""
        import zarr
        from zarr.codecs import BloscCodec, Crc32cCodec

        bits = features.to("cpu", STORED).contiguous().view(torch.int16).numpy()
        path = self._path(key)
        temporary = path.with_name(f".{key}-{secrets.token_hex(4)}")
        try:
            make_private_folder(self._folder)
            zarr.create_array(
                temporary,
                data=bits.view(np.uint16),
                chunks=(1, min(_CHUNK_CHANNELS, bits.shape[1]), *bits.shape[2:]),
                compressors=(
                    BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
                    Crc32cCodec(),
                ),
            )
            size = _size(temporary)
            self._make_room(size)
            temporary.rename(path)
            self._used = (self._used or 0) + size
        except OSError as error:
            # Another session may have been faster with the same entry.
            if not path.is_dir():
                _log.warning("An encoded slice could not be kept: %s", error)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(_size(entry) for entry in self._entries())

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.zarr"

    def _entries(self) -> list[Path]:
        return list(self._folder.glob("*.zarr")) if self._folder.is_dir() else []

    def _make_room(self, size: int) -> None:
        if self._used is not None and self._used + size <= self._budget:
            return
        # Counted anew, for other sessions use the same folder.
        self._remove_abandoned()
        entries = sorted(
            ((_last_used(entry), entry, _size(entry)) for entry in self._entries()),
            key=lambda found: found[0],
        )
        self._used = sum(found[2] for found in entries)
        for _, entry, entry_size in entries:
            if self._used + size <= self._budget:
                break
            shutil.rmtree(entry, ignore_errors=True)
            self._used -= entry_size

    def _remove_abandoned(self) -> None:
        for hidden in self._folder.glob(".*"):
            if time.time() - _last_used(hidden) > _ABANDONED_SECONDS:
                shutil.rmtree(hidden, ignore_errors=True)


def _last_used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total
