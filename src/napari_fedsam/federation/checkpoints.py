"""The coordinator's memory: shared parameters and results of each round, on disk."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_fedsam.federation.errors import FederationError
from napari_fedsam.files import fsync_folder, make_private_folder, sha256_of, write_text_atomically

if TYPE_CHECKING:
    # PyTorch takes seconds to import, and most commands of a coordinator read records alone.
    from torch import Tensor

_ARRAYS = "shared.safetensors"
_RESULT = "round.json"


class RefusedUpdate(BaseModel):
    """An update or error reply that did not enter a round.

    Attributes
    ----------
    node_id : str
        Flower's number of the site.
    code : str
        Why, as a code (see `ReplyCode`).
    """

    model_config = ConfigDict(frozen=True)

    node_id: str
    code: str


class RoundResult(BaseModel):
    """What a round was.

    Attributes
    ----------
    round : int
        Its number, counted over all runs of the federation.
    recipe_hash : str
        Recipe under which it was trained.
    aggregated : bool
        Whether enough updates came; otherwise the shared parameters stayed as they were.
    updates : int
        Updates that entered the average.
    examples : int
        Training cases behind them.
    loss : float or None
        Their mean training loss, weighted by cases.
    evaluations : int
        Sites that judged the round's model on held-out cases.
    dice : dict of str to float
        Mean held-out Dice by kind of prompt (`none`, `box`), weighted by held-out cases.
    activated : int
        Sites that took the round's model into use.
    refused : tuple of RefusedUpdate
        What was left out, and why.
    complete : bool
        Whether the round is over: the sites have judged its model, or there was none to judge.
    seconds : float
        Duration of the round.
    sha256 : str
        Checksum of the parameters file, "" when the round was not aggregated.
    """

    model_config = ConfigDict(frozen=True)

    round: int
    recipe_hash: str
    aggregated: bool = False
    updates: int = 0
    examples: int = 0
    loss: float | None = None
    evaluations: int = 0
    dice: dict[str, float] = {}
    activated: int = 0
    refused: tuple[RefusedUpdate, ...] = ()
    complete: bool = False
    seconds: float = 0.0
    sha256: str = ""

    @property
    def summary(self) -> str:
        """The round in one line."""
        left_out = f", {len(self.refused)} left out" if self.refused else ""
        if not self.aggregated:
            return f"round {self.round}: too few updates{left_out}; nothing changed"
        dice = "".join(f", Dice {kind} {value:.3f}" for kind, value in self.dice.items())
        return (
            f"round {self.round}: {self.updates} updates from {self.examples} cases{left_out}"
            f"{dice}, in use at {self.activated} sites"
        )


class CheckpointStore:
    """Rounds as folders `rounds/0001/{shared.safetensors, round.json}`, each complete or absent.

    Parameters
    ----------
    folder : Path
        The coordinator's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "rounds"

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
        """Return the number of the next round."""
        results = self.results()
        return results[-1].round + 1 if results else 1

    def newest(self, recipe_hash: str) -> "dict[str, Tensor] | None":
        """Return the shared parameters of the newest aggregated round of a recipe, if any.

        Raises
        ------
        FederationError
            When the file does not match its checksum.
        """
        for result in reversed(self.results()):
            if result.aggregated and result.recipe_hash == recipe_hash:
                path = self._round_folder(result.round) / _ARRAYS
                if not path.exists() or sha256_of(path) != result.sha256:
                    raise FederationError(
                        f"The parameters of round {result.round} are damaged; restore {path} from "
                        "a backup or remove its folder to resume at the round before."
                    )
                from safetensors.torch import load_file

                shared: dict[str, Tensor] = load_file(path)
                return shared
        return None

    def save(self, result: RoundResult, shared: "dict[str, Tensor] | None") -> RoundResult:
        """Save a round in one step; `shared` is None when nothing was aggregated."""
        make_private_folder(self._folder)
        temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=self._folder))
        try:
            if shared is not None:
                from safetensors.torch import save_file

                save_file(shared, temporary / _ARRAYS)
                checksum = sha256_of(temporary / _ARRAYS)
                result = result.model_copy(update={"aggregated": True, "sha256": checksum})
            write_text_atomically(temporary / _RESULT, result.model_dump_json(indent=2))
            temporary.rename(self._round_folder(result.round))
            fsync_folder(self._folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return result

    def update(self, result: RoundResult) -> None:
        """Replace the record of a round that is saved already."""
        path = self._round_folder(result.round) / _RESULT
        write_text_atomically(path, result.model_dump_json(indent=2))

    def _round_folder(self, number: int) -> Path:
        return self._folder / f"{number:04d}"
