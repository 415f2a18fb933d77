"""The coordinator's memory: shared parameters and results of each round, on disk."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydantic import ValidationError

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.round_result import RoundResult
from napari_fedsam.files import fsync_folder, make_private_folder, sha256_of, write_text_atomically

if TYPE_CHECKING:
    # PyTorch takes seconds to import, and most commands of a coordinator read records alone.
    from torch import Tensor

    from napari_fedsam.federation.update_folder import Vector

_ARRAYS = "shared.safetensors"
_MOMENTS = "moments.safetensors"
_OWN = "sites"
_RESULT = "round.json"
_LOCK = ".serverapp.lock"


@dataclass(frozen=True)
class Aggregate:
    """What a round leaves to the next.

    Attributes
    ----------
    shared : mapping of str to Tensor
        The shared parameters.
    own : mapping of str to (mapping of str to Tensor)
        Shared parameters of single sites by Flower's number, where each has its own average.
    moments : mapping of str to array, optional
        FedAdam's, each one value per parameter.
    """

    shared: "Mapping[str, Tensor]"
    own: "Mapping[str, Mapping[str, Tensor]]" = field(default_factory=dict)
    moments: "Mapping[str, Vector] | None" = None


class CheckpointStore:
    """Rounds as folders `rounds/0001/{shared.safetensors, round.json}`, each complete or absent.

    Parameters
    ----------
    folder : Path
        The coordinator's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "rounds"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other ServerApp from working here.

        Raises
        ------
        FederationError
            When another one does.
        """
        make_private_folder(self._folder)
        # `in_use` holds it for a moment.
        lock = FileLock(self._folder / _LOCK, timeout=1)
        try:
            lock.acquire()
        except Timeout as error:
            raise FederationError(
                f"Another ServerApp runs rounds in {self._folder}; this one ends and changes "
                "nothing."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def in_use(self) -> bool:
        """Whether a ServerApp works here now."""
        if not self._folder.exists():
            return False
        try:
            with FileLock(self._folder / _LOCK, timeout=0):
                return False
        except Timeout:
            return True

    def remove_unfinished(self) -> None:
        """Remove what a killed ServerApp was saving; only the one that saves may call this."""
        for left in self._folder.glob(".saving-*"):
            shutil.rmtree(left, ignore_errors=True)

    def results(self) -> list[RoundResult]:
        """Return all rounds, oldest first."""
        found = []
        for path in sorted(self._folder.glob(f"[0-9]*/{_RESULT}")):
            try:
                found.append(RoundResult.model_validate_json(path.read_text(encoding="utf-8")))
            except ValidationError as error:
                raise FederationError(
                    f"The record of round {path.parent.name} is damaged; restore {path} from a "
                    "backup or remove its folder to resume at the round before."
                ) from error
        return found

    def next_round(self) -> int:
        """Return the number of the next round: one that changed nothing is run again."""
        return max((result.round for result in self.results() if result.aggregated), default=0) + 1

    def unjudged(self, recipe_hash: str) -> RoundResult | None:
        """Return the newest aggregated round of a recipe while its model is not judged."""
        result = self._newest_aggregated(recipe_hash)
        return None if result is None or result.complete else result

    def best(self) -> RoundResult | None:
        """Return the round with the highest mean held-out Dice, the latest of equals, if any."""
        judged = [result for result in self.results() if result.mean_dice is not None]
        return max(judged, key=lambda result: (result.mean_dice, result.round), default=None)

    def aggregated_rounds(self, recipe_hash: str) -> int:
        """Return how many rounds of a recipe changed the shared parameters."""
        return sum(
            result.aggregated and result.recipe_hash == recipe_hash for result in self.results()
        )

    def accepted_norms(self, recipe_hash: str) -> dict[str, list[float]]:
        """Return the norms of each site's accepted updates under a recipe, oldest first."""
        norms: dict[str, list[float]] = {}
        for result in self.results():
            if result.recipe_hash == recipe_hash:
                for site in result.accepted:
                    if site.norm is not None:
                        norms.setdefault(site.node_id, []).append(site.norm)
        return norms

    @property
    def arrivals(self) -> Path:
        """Return the folder for the updates of the present round."""
        return self._folder / ".saving-updates"

    def newest(self, recipe_hash: str) -> Aggregate | None:
        """Return what the newest aggregated round of a recipe left, if there is one.

        Raises
        ------
        FederationError
            When the file of the shared parameters does not match its checksum.
        """
        result = self._newest_aggregated(recipe_hash)
        return None if result is None else self._load(result)

    def have_newest(self, recipe_hash: str) -> set[str]:
        """Return the sites that have received, and judged, what `newest` returns."""
        result = self._newest_aggregated(recipe_hash)
        return set() if result is None else {s.node_id for s in result.sites if s.judged}

    def _newest_aggregated(self, recipe_hash: str) -> RoundResult | None:
        for result in reversed(self.results()):
            if result.aggregated and result.recipe_hash == recipe_hash:
                return result
        return None

    def _load(self, result: RoundResult) -> Aggregate:
        folder = self._round_folder(result.round)
        path = folder / _ARRAYS
        if not path.exists() or sha256_of(path) != result.sha256:
            raise FederationError(
                f"The parameters of round {result.round} are damaged; restore {path} from "
                "a backup or remove its folder to resume at the round before."
            )
        from safetensors.numpy import load_file as load_vectors
        from safetensors.torch import load_file

        moments = folder / _MOMENTS
        return Aggregate(
            shared=load_file(path),
            own={own.stem: load_file(own) for own in (folder / _OWN).glob("*.safetensors")},
            moments=load_vectors(moments) if moments.exists() else None,
        )

    def save(self, result: RoundResult, aggregate: Aggregate | None) -> RoundResult:
        """Save a round in one step; `aggregate` is None when nothing changed.

        The record replaces that of an attempt at the same round which changed nothing.
        """
        make_private_folder(self._folder)
        result = self._after_attempts(result)
        temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=self._folder))
        try:
            if aggregate is not None:
                checksum = self._write(aggregate, temporary)
                result = result.model_copy(update={"sha256": checksum})
            write_text_atomically(temporary / _RESULT, result.model_dump_json(indent=2))
            folder = self._round_folder(result.round)
            if folder.exists():
                _move_parts(temporary, folder)
            else:
                temporary.rename(folder)
            fsync_folder(self._folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return result

    def _after_attempts(self, result: RoundResult) -> RoundResult:
        for earlier in self.results():
            if earlier.round == result.round:
                return result.model_copy(update={"earlier_releases": earlier.releases})
        return result

    @staticmethod
    def _write(aggregate: Aggregate, folder: Path) -> str:
        from safetensors.numpy import save_file as save_vectors
        from safetensors.torch import save_file

        save_file(dict(aggregate.shared), folder / _ARRAYS)
        if aggregate.moments is not None:
            save_vectors(dict(aggregate.moments), folder / _MOMENTS)
        if aggregate.own:
            (folder / _OWN).mkdir()
            for site, state in aggregate.own.items():
                save_file(dict(state), folder / _OWN / f"{site}.safetensors")
        return sha256_of(folder / _ARRAYS)

    def update(self, result: RoundResult) -> None:
        """Replace the record of a round that is saved already."""
        path = self._round_folder(result.round) / _RESULT
        write_text_atomically(path, result.model_dump_json(indent=2))

    def _round_folder(self, number: int) -> Path:
        return self._folder / f"{number:04d}"


def _move_parts(source: Path, target: Path) -> None:
    """Move what `source` holds into `target`, whose old record stands until all else is there."""
    for name in (_ARRAYS, _MOMENTS, _OWN, _RESULT):
        part, place = source / name, target / name
        if part.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        if part.exists():
            part.replace(place)
    fsync_folder(target)
