"""Training at one site alone, on its own cases: `python -m napari_fedsam.training.site_training`.

It runs in a process of its own, tells its progress in lines of JSON, and ends when its standard
input is closed, which happens when the program that started it is gone.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.registry import load_model
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.evaluation import JUDGED_PROMPTS, Evaluation
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.judging import does_no_worse, judge
from napari_fedsam.training.local_update import MOMENTS, local_update
from napari_fedsam.training.profile_folder import FIRST, profile_folder
from napari_fedsam.training.progress import Progress
from napari_fedsam.training.samples import samples_from_store
from napari_fedsam.training.site_model import load_site_model, model_in_training
from napari_fedsam.training.versions import VersionStore


class SiteTrainingResult(BaseModel):
    """What training at a site made.

    Attributes
    ----------
    version : int
        The new model version's number.
    cases, held_out : int
        Cases trained on, and cases judged on.
    before, after : dict
        Mean Dice on the held-out cases by kind of prompt, of the model in use and the new one;
        None without held-out cases.
    used : bool
        Whether the new version was taken into use: it did no worse.
    """

    model_config = ConfigDict(frozen=True)

    version: int
    cases: int
    held_out: int
    before: dict[str, float | None]
    after: dict[str, float | None]
    used: bool


def train_at_site(
    site_folder: Path,
    recipe: Recipe,
    *,
    profile: str = FIRST,
    progress: Callable[[Progress], None] | None = None,
) -> SiteTrainingResult:
    """Train a profile's newest model on the site's cases and keep the outcome as a version.

    Parameters
    ----------
    site_folder : Path
        The site's home folder.
    recipe : Recipe
        The federation's, or the site's own.
    profile : str
        Key of the profile whose versions are read and written.
    progress : callable, optional

    Raises
    ------
    FedSamError
        Without training cases, or when files cannot be read or written; the model in use stays.
    """
    store = CaseStore(site_folder / "cases")
    samples = samples_from_store(store, recipe, "train")
    held_out = samples_from_store(store, recipe, "val")
    if not samples:
        raise TrainingError("There are no training cases yet: accept some masks first.")
    cache = FeatureCache(site_folder / "cache")
    folder = profile_folder(site_folder, profile)
    in_use, active = load_site_model(folder, recipe)
    before = judge(in_use if active else load_model(recipe.base_model), held_out, cache)
    model = model_in_training(folder, recipe)
    versions = VersionStore(folder / "versions")
    earlier = versions.versions()
    # Trained again, a site is to draw other numbers.
    seed = recipe.seed + (earlier[-1].number if earlier else 0)
    due = [m for m in MOMENTS if m == "update" or model.method.personalise]
    for number, moment in enumerate(due):
        local_update(
            model,
            samples,
            seed=seed,
            moment=moment,
            progress=_part(progress, number, len(due)),
            cache=cache,
        )
    shared, local = model.shared_state(), model.local_state()
    # Judged as it will be used: loaded, for only then does a model answer clicks by itself.
    after = judge(model.load_shared(shared).load_local(local), held_out, cache)
    used = does_no_worse(after.overall_dice(), before.overall_dice())
    version = versions.save(
        shared, local, round=0, recipe_hash=recipe.hash, dice=_dice(after), passed=used
    )
    if used:
        versions.activate(version.number)
    return SiteTrainingResult(
        version=version.number,
        cases=len(samples),
        held_out=len(held_out),
        before=_dice(before),
        after=_dice(after),
        used=used,
    )


def _part(
    progress: Callable[[Progress], None] | None, number: int, parts: int
) -> Callable[[Progress], None] | None:
    if progress is None:
        return None
    return lambda done: progress(Progress((number + done.fraction) / parts, done.seconds_left))


def _dice(evaluation: Evaluation) -> dict[str, float | None]:
    return {kind: evaluation.mean_dice(kind) for kind in JUDGED_PROMPTS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, telling {"fraction", "seconds_left"}, then {"result"} or {"error"}, line by line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("site_folder", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--profile", default=FIRST, help="key of the profile")
    given = parser.parse_args(arguments)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()

    def tell(**content: object) -> None:
        sys.stdout.write(json.dumps(content) + "\n")
        sys.stdout.flush()

    try:
        recipe = Recipe.read(given.recipe)
        result = train_at_site(
            given.site_folder,
            recipe,
            profile=given.profile,
            progress=lambda p: tell(fraction=p.fraction, seconds_left=p.seconds_left),
        )
    except FedSamError as error:
        tell(error=str(error))
        sys.exit(1)
    tell(result=result.model_dump())


def _end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
