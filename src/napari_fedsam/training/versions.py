"""The site's model versions: kept on disk, one of them active.

A version holds the shared parameters of a round and the local parameters that were trained with
them, so that going back takes both back. Another process may write while this one reads: a version
appears in one step, and so does a change of the active one.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_fedsam.files import (
    fsync_folder,
    make_private_folder,
    sha256_of,
    write_text_atomically,
)
from napari_fedsam.personalization.errors import ParameterError
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.training.errors import VersionError

_RECORD = "version.json"
_SHARED = "shared.safetensors"
_LOCAL = "local.safetensors"
_ACTIVE = "active"
_NEW = ".new."
# Beside the active version and the newest of each recipe.
_KEPT = 20


class Version(BaseModel):
    """A personalised model that this site has, apart from its frozen parameters.

    Attributes
    ----------
    number : int
        Counts from 1.
    round : int
        The federation's round that it came from; 0 for training at this site alone.
    recipe_hash : str
        The recipe that its parameters fit.
    created : datetime
        In UTC.
    dice : dict
        Mean Dice on this site's held-out cases by kind of prompt; None without such cases.
    sha256 : dict
        Checksums of the parameter files.
    passed : bool
        Whether it did no worse than the model in use at the time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    round: int
    recipe_hash: str
    created: datetime
    dice: dict[str, float | None]
    sha256: dict[str, str]
    passed: bool = False

    @property
    def label(self) -> str:
        """What people read, for instance "round 3, this site"."""
        return f"round {self.round}, this site" if self.round else "trained at this site"


class VersionStore:
    """Model versions in a folder, private to the user.

    Parameters
    ----------
    folder : Path
        Created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = make_private_folder(folder)
        self._lock = FileLock(folder / ".lock")

    def versions(self) -> list[Version]:
        """Return every readable version, oldest first."""
        found = []
        for path in sorted(self._numbered(), key=lambda path: int(path.name)):
            try:
                found.append(_read_record(path))
            except VersionError:
                continue
        return found

    def newest(self, recipe_hash: str) -> Version | None:
        """Return the newest version of a recipe, used or not; None without any."""
        found = [version for version in self.versions() if version.recipe_hash == recipe_hash]
        return found[-1] if found else None

    def active(self) -> Version | None:
        """Return the version in use; None while the site uses the base model."""
        name = self._active_name()
        return _read_record(self._folder / name) if name else None

    def save(
        self,
        shared: Mapping[str, torch.Tensor],
        local: Mapping[str, torch.Tensor],
        *,
        round: int,  # noqa: A002
        recipe_hash: str,
        dice: Mapping[str, float | None],
        passed: bool = False,
    ) -> Version:
        """Keep a version, durable before this returns; it is not activated.

        The oldest give way: the active one, the newest of each recipe, and the last 20 stay.

        Parameters
        ----------
        shared, local : mapping of name to tensor
        round : int
        recipe_hash : str
        dice : mapping of kind of prompt to mean Dice or None
        passed : bool
            Whether it did no worse than the model in use.

        Raises
        ------
        VersionError
            When the disk refuses.
        """
        with self._lock:
            for left in self._folder.glob(f"{_NEW}*"):
                # By a process that was killed while it held the lock.
                shutil.rmtree(left, ignore_errors=True)
            number = 1 + max((int(path.name) for path in self._numbered()), default=0)
            temporary = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._folder))
            try:
                save_file(dict(shared), temporary / _SHARED)
                save_file(dict(local), temporary / _LOCAL)
                version = Version(
                    number=number,
                    round=round,
                    recipe_hash=recipe_hash,
                    created=datetime.now(UTC),
                    dice=dict(dice),
                    sha256={name: sha256_of(temporary / name) for name in (_SHARED, _LOCAL)},
                    passed=passed,
                )
                write_text_atomically(temporary / _RECORD, version.model_dump_json(indent=2))
                for name in (_SHARED, _LOCAL):
                    _sync(temporary / name)
                temporary.rename(self._folder / f"{number:04d}")
                fsync_folder(self._folder)
            # safetensors wraps the system's refusals in its own error.
            except (OSError, SafetensorError) as error:
                shutil.rmtree(temporary, ignore_errors=True)
                raise VersionError(
                    f"The new model could not be kept in {self._folder} ({error}); the "
                    "present one stays in use: make room and go on."
                ) from error
            self._remove_old()
        return version

    def _remove_old(self) -> None:
        versions = self.versions()
        newest = {version.recipe_hash: version.number for version in versions}
        stay = {self._active_name(), *(f"{number:04d}" for number in newest.values())}
        for version in versions[:-_KEPT]:
            name = f"{version.number:04d}"
            if name not in stay:
                shutil.rmtree(self._folder / name, ignore_errors=True)

    def _active_name(self) -> str:
        try:
            return (self._folder / _ACTIVE).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def activate(self, number: int | None) -> None:
        """Use a version from now on; None goes back to the base model.

        Raises
        ------
        VersionError
            When there is no such version.
        """
        name = ""
        if number is not None:
            name = f"{number:04d}"
            _read_record(self._folder / name)
        with self._lock:
            write_text_atomically(self._folder / _ACTIVE, name)

    def load_into(self, model: PersonalisedModel, version: Version) -> None:
        """Load a version's shared and local parameters.

        Raises
        ------
        VersionError
            When the version is of another recipe, its files are damaged, or this version of the
            program shares other parameters; the model is then not to be used.
        """
        if version.recipe_hash != model.recipe.hash:
            raise VersionError(
                f"Model version {version.number} belongs to another recipe: choose a version of "
                "the present federation."
            )
        shared, local = self._read(version, _SHARED), self._read(version, _LOCAL)
        try:
            model.load_shared(shared)
            model.load_local(local)
        except ParameterError as error:
            raise VersionError(
                f"Model version {version.number} does not fit this version of napari-fedsam "
                f"({error}) Go back to the base model, or to another version."
            ) from error

    def _numbered(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.name.isdecimal()]

    def _read(self, version: Version, name: str) -> dict[str, torch.Tensor]:
        path = self._folder / f"{version.number:04d}" / name
        damaged = VersionError(
            f"Model version {version.number} is damaged ({path}): go back to an earlier version."
        )
        try:
            if sha256_of(path) != version.sha256.get(name):
                raise damaged
            state: dict[str, torch.Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise damaged from error
        return state


def _read_record(path: Path) -> Version:
    try:
        return Version.model_validate_json((path / _RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise VersionError(
            f"There is no readable model version in {path}: choose another version."
        ) from error


def _sync(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())
