"""Training at one site alone, on its own cases: `python -m napari_fedsam.training.site_training`.

It runs in a process of its own, tells its progress in lines of JSON, and ends when its standard
input is closed, which happens when the program that started it is gone.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.child_process import end_with_standard_input
from napari_fedsam.errors import FedSamError
from napari_fedsam.personalization.methods import method_named
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.errors import TrainingError, refused_by_system
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.kept_models import KeptModels
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.new_version import Outcome, make_version
from napari_fedsam.training.profile_folder import FIRST, profile_folder
from napari_fedsam.training.progress import Progress
from napari_fedsam.training.samples import samples_from_store, structure_names
from napari_fedsam.training.schedule import MOMENTS, planned_steps
from napari_fedsam.training.site_model import versions_of


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
    outcome : str
        What became of the new version, see `new_version.Outcome`.
    """

    model_config = ConfigDict(frozen=True)

    version: int
    cases: int
    held_out: int
    before: dict[str, float | None]
    after: dict[str, float | None]
    outcome: Outcome

    @property
    def verdict(self) -> str:
        """What became of the new version, in a sentence."""
        return _VERDICTS[self.outcome]


_VERDICTS: dict[Outcome, str] = {
    "used": "It is in use.",
    "asking": "It did no worse, and waits for your yes in the section Model.",
    "overtaken": "It did no worse, but another model has come into use meanwhile: it is kept, and "
    "on offer in the section Model.",
    "worse": "It did worse: it is kept but not used.",
    "unjudged": "It could not be judged: it is kept but not used.",
}


def train_at_site(
    site_folder: Path,
    recipe: Recipe,
    *,
    profile: str = FIRST,
    ask_first: bool = False,
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
    ask_first : bool
        Whether a new model that did no worse waits until the person wants to use it.
    progress : callable, optional
        Called after every step and every judged case.

    Raises
    ------
    FedSamError
        Without training cases, or when files cannot be read or written; the model in use stays.
    """
    store = CaseStore(site_folder / "cases")
    samples = samples_from_store(store, recipe, "train")
    held_out = samples_from_store(store, recipe, "val")
    if not samples:
        raise TrainingError(
            f"There are no training cases of {structure_names(recipe)} yet: accept some masks "
            "first."
        )
    cache = FeatureCache(site_folder / "cache")
    folder = profile_folder(site_folder, profile)
    earlier = versions_of(folder).versions()
    # Trained again, a site is to draw other numbers.
    seed = recipe.seed + (earlier[-1].number if earlier else 0)
    due = [m for m in MOMENTS if m == "update" or method_named(recipe.method).personalise]

    def train(model: PersonalisedModel, step: Callable[[Progress], None]) -> None:
        for moment in due:
            local_update(model, samples, seed=seed, moment=moment, progress=step, cache=cache)

    judgement = make_version(
        folder,
        recipe,
        held_out,
        train,
        steps=sum(planned_steps(recipe, samples, moment) for moment in due),
        round=0,
        ask_first=lambda: ask_first,
        cache=cache,
        models=KeptModels(),
        progress=progress,
    )
    return SiteTrainingResult(
        version=judgement.version,
        cases=len(samples),
        held_out=len(held_out),
        before=judgement.before.judged_dice(),
        after=judgement.after.judged_dice(),
        outcome=judgement.outcome,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, telling {"fraction", "seconds_left"}, then {"result"} or {"error"}, line by line.

    The traceback of whatever failed is on standard error.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("site_folder", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--profile", default=FIRST, help="key of the profile")
    parser.add_argument("--ask-first", action="store_true", help="do not use the new model yet")
    given = parser.parse_args(arguments)
    end_with_standard_input()

    def tell(**content: object) -> None:
        sys.stdout.write(json.dumps(content) + "\n")
        sys.stdout.flush()

    try:
        recipe = Recipe.read(given.recipe)
        result = train_at_site(
            given.site_folder,
            recipe,
            profile=given.profile,
            ask_first=given.ask_first,
            progress=lambda p: tell(fraction=p.fraction, seconds_left=p.seconds_left),
        )
    except FedSamError as error:
        tell(error=str(error))
        raise
    except OSError as error:
        tell(error=str(refused_by_system("Training stopped", error, given.site_folder)))
        raise
    tell(result=result.model_dump())


if __name__ == "__main__":
    main()
