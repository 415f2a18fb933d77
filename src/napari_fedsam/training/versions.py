"""The site's model versions: kept on disk, one of them active.

A version holds the shared parameters of a round, the local parameters that were trained with them,
so that going back takes both back, and the recipe that both fit, for the site may come to work
under another one. Another process may write while this one reads: a version appears in one step,
and so does a change of the active one.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
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
from napari_fedsam.personalization.errors import ParameterError, RecipeError
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.errors import VersionError

_RECORD = "version.json"
_SHARED = "shared.safetensors"
_LOCAL = "local.safetensors"
_RECIPE = "recipe.json"
_FILES = (_SHARED, _LOCAL, _RECIPE)
# The numbers of the versions in the order in which they came into use, one a line.
_ACTIVE = "active"
_NEW = ".new."
# Beside the active version, the one before it, and the newest of each recipe.
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
        Of the recipe that its parameters fit.
    created : datetime
        In UTC.
    dice : dict
        Mean Dice on this site's held-out cases by kind of prompt; None without such cases.
    sha256 : dict
        Checksums of its files.
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

    @property
    def active_number(self) -> int | None:
        """Number of the version in use, readable or not; None while it is the base model.

        Raises
        ------
        VersionError
            When the disk or rights prevent reading.
        """
        return next(reversed(self._activated()), None)

    def active(self) -> Version | None:
        """Return the version in use; None while the site uses the base model.

        Raises
        ------
        VersionError
            When its record cannot be read.
        """
        number = self.active_number
        return None if number is None else _read_record(self._path(number))

    def recipe_of(self, version: Version) -> Recipe:
        """Return the recipe that a version's parameters fit.

        Raises
        ------
        VersionError
            When it cannot be read, or is not the one that the version was saved with.
        """
        path = self._path(version.number) / _RECIPE
        try:
            recipe = Recipe.read(path)
        except RecipeError as error:
            raise _damaged(version.number, path) from error
        if recipe.hash != version.recipe_hash:
            raise _damaged(version.number, path)
        return recipe

    def save(
        self,
        shared: Mapping[str, torch.Tensor],
        local: Mapping[str, torch.Tensor],
        *,
        round: int,  # noqa: A002
        recipe: Recipe,
        dice: Mapping[str, float | None],
        passed: bool = False,
    ) -> Version:
        """Keep a version, durable before this returns; it is not activated.

        The oldest give way: the active one and the one before it, the newest of each recipe, and
        the last 20 stay.

        Parameters
        ----------
        shared, local : mapping of name to tensor
        round : int
        recipe : Recipe
            That the parameters fit.
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
                recipe.write(temporary / _RECIPE)
                version = Version(
                    number=number,
                    round=round,
                    recipe_hash=recipe.hash,
                    created=datetime.now(UTC),
                    dice=dict(dice),
                    sha256={name: sha256_of(temporary / name) for name in _FILES},
                    passed=passed,
                )
                write_text_atomically(temporary / _RECORD, version.model_dump_json(indent=2))
                for name in (_SHARED, _LOCAL):
                    _sync(temporary / name)
                temporary.rename(self._path(number))
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
        stay = {*self._activated()[-2:], *newest.values()}
        for version in versions[:-_KEPT]:
            if version.number not in stay:
                shutil.rmtree(self._path(version.number), ignore_errors=True)

    def activate(self, number: int) -> None:
        """Use a version from now on.

        Raises
        ------
        VersionError
            When there is no such version, or the disk refuses.
        """
        with self._lock:
            self._append(number)

    def replace_active(self, number: int, *, instead_of: int | None) -> bool:
        """Use a version from now on, unless another one has come into use meanwhile.

        Parameters
        ----------
        number : int
        instead_of : int or None
            Number of the version that it was found to do no worse than; None for the base model.

        Returns
        -------
        bool
            Whether it is in use now.

        Raises
        ------
        VersionError
            As `activate`.
        """
        with self._lock:
            if self.active_number != instead_of:
                return False
            self._append(number)
        return True

    def go_back(self) -> None:
        """Use the version that was in use before the present one; before the first, the base model.

        Versions that are gone or damaged are passed over.

        Raises
        ------
        VersionError
            When the disk refuses.
        """
        with self._lock:
            earlier = self._activated()[:-1]
            while earlier and not self._is_whole(earlier[-1]):
                earlier.pop()
            self._write_activated(earlier)

    def _append(self, number: int) -> None:
        _read_record(self._path(number))
        before = [each for each in self._activated() if each != number]
        self._write_activated([*before, number])

    def _activated(self) -> list[int]:
        """Return the numbers of the versions in the order in which they came into use."""
        path = self._folder / _ACTIVE
        try:
            words = path.read_text(encoding="utf-8", errors="replace").split()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise VersionError(
                f"Which model is in use cannot be read from {path} ({error.strerror}): mend the "
                "rights of the file, or remove it to use the base model."
            ) from error
        return [int(word) for word in words if word.isdecimal()]

    def _write_activated(self, numbers: Iterable[int]) -> None:
        # What has given way meanwhile can never be used again.
        text = "".join(f"{number}\n" for number in numbers if self._path(number).is_dir())
        try:
            write_text_atomically(self._folder / _ACTIVE, text)
        except OSError as error:
            raise VersionError(
                f"Which model is in use could not be noted in {self._folder} ({error.strerror}); "
                "the present one stays in use: make room, mend the rights, and try again."
            ) from error

    def _is_whole(self, number: int) -> bool:
        path = self._path(number)
        try:
            expected = _read_record(path).sha256
            return all(sha256_of(path / name) == expected.get(name) for name in _FILES)
        except (OSError, VersionError):
            return False

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

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:04d}"

    def _numbered(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.name.isdecimal()]

    def _read(self, version: Version, name: str) -> dict[str, torch.Tensor]:
        path = self._path(version.number) / name
        try:
            if sha256_of(path) != version.sha256.get(name):
                raise _damaged(version.number, path)
            state: dict[str, torch.Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise _damaged(version.number, path) from error
        return state


def _damaged(number: int, path: Path) -> VersionError:
    return VersionError(
        f"Model version {number} is damaged ({path}): go back to an earlier version."
    )


def _read_record(path: Path) -> Version:
    unreadable = VersionError(
        f"There is no readable model version in {path}: choose another version."
    )
    try:
        version = Version.model_validate_json((path / _RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise unreadable from error
    if not (path / _RECIPE).is_file():
        raise unreadable
    return version


def _sync(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())
