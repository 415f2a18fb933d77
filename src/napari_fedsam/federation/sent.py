"""What was sent: the exact bytes of the last messages, to be opened and checked."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from napari_fedsam.federation.audit import AuditLine
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.packed_parameters import unpack_parameters
from napari_fedsam.files import atomic_path, make_private_folder

# Ten rounds of training and judging.
_KEPT = 20


def keep_sent(folder: Path, message: Message) -> None:
    """Keep the parts of a message that is about to be sent, as Flower transmits them.

    A stored zip file, one entry for each of Flower's objects, named by its SHA-256.

    Parameters
    ----------
    folder : Path
        Where the messages are kept; the oldest are removed.
    message : Message
    """
    make_private_folder(folder)
    parts = get_all_nested_objects(message)
    with (
        atomic_path(_path(folder, message.object_id)) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, part in parts.items():
            archive.writestr(name, part.deflate())
    kept = sorted(folder.glob("*.zip"), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[:-_KEPT]:
        path.unlink(missing_ok=True)


def is_kept(folder: Path, line: AuditLine) -> bool:
    """Tell whether the message of an audit line can still be opened."""
    return _path(folder, line.sha256).exists()


def open_sent(folder: Path, line: AuditLine) -> Message:
    """Open the message that an audit line tells of, and check that it is that one to the bit.

    Raises
    ------
    FederationError
        When it is no longer kept, or was changed since.
    """
    path = _path(folder, line.sha256)
    if not path.exists():
        raise FederationError(
            f"The message of {line.time} is no longer kept; the last {_KEPT} can be opened."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise FederationError(f"The kept message {path} is damaged.") from error
    changed = [name for name, part in parts.items() if hashlib.sha256(part).hexdigest() != name]
    if changed or line.sha256 not in parts:
        raise FederationError(f"The kept message {path} is not what was sent: it was changed.")
    message: Message = inflate_object_from_contents(line.sha256, parts)
    return message


def arrays_of(message: Message) -> dict[str, np.ndarray]:
    """Return all parameters in a message by name.

    Raises
    ------
    PackingError
        When the message holds arrays in another form.
    """
    if not message.has_content():
        return {}
    return {
        name: tensor.numpy()
        for record in message.content.array_records.values()
        for name, tensor in sorted(unpack_parameters(record).items())
    }


def _path(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.zip"
