"""A new version: trained, judged against the model in use, kept, and used where it did no worse."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_fedsam.errors import FedSamError
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.training.evaluation import Evaluation
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.judging import does_no_worse, judge
from napari_fedsam.training.kept_models import KeptModels
from napari_fedsam.training.progress import Progress, ProgressMeter
from napari_fedsam.training.samples import TrainingSample, renumbered
from napari_fedsam.training.site_model import load_site_model, model_in_training, versions_of
from napari_fedsam.training.site_recipe import adopt

_log = logging.getLogger(__name__)

Outcome = Literal["used", "asking", "overtaken", "worse", "unjudged"]
"""What became of a new version: in use; waiting for the person's yes; not used, though no worse
than what was in use, because another one has come into use meanwhile; worse; not to be judged."""

Step = Callable[[Progress], None]


@dataclass(frozen=True)
class Judgement:
    """A new version against the model in use, on this site's held-out cases.

    Attributes
    ----------
    version : int
        The new one's number.
    judged_against : int or None
        Number of the version that was in use; None for the base model.
    before, after : Evaluation
        Of the model that was in use, and of the new one.
    outcome : str
        See `Outcome`.
    """

    version: int
    judged_against: int | None
    before: Evaluation
    after: Evaluation
    outcome: Outcome

    @property
    def message(self) -> str:
        """What the user is told, a sentence without its capital letter."""
        present, candidate = self.before.overall_dice() or 0.0, self.after.overall_dice()
        in_use = "the base model"
        if self.judged_against is not None:
            in_use = f"version {self.judged_against}"
        if candidate is None:
            return (
                "the new model is kept but not used, for there are no held-out cases with the "
                f"structure to judge it; {in_use} stays in use."
            )
        dice = f"Dice {candidate:.3f} on held-out cases"
        if self.outcome == "used":
            return f"the new model is in use ({dice})."
        if self.outcome == "asking":
            return (
                f"the new model did no worse ({dice}, against {present:.3f} now) and waits for "
                f"your yes in the section Model; {in_use} stays in use."
            )
        if self.outcome == "overtaken":
            return (
                f"the new model did no worse than {in_use} ({dice}, against {present:.3f}), but "
                "another one has come into use meanwhile: the new one is kept, and on offer in "
                "the section Model."
            )
        return (
            f"the new model is kept but not used ({dice}, against {present:.3f} now); {in_use} "
            "stays in use."
        )


def make_version(
    folder: Path,
    recipe: Recipe,
    held_out: Sequence[TrainingSample],
    train: Callable[[PersonalisedModel, Step], object],
    *,
    steps: int,
    round: int,  # noqa: A002
    ask_first: Callable[[], bool],
    cache: FeatureCache,
    models: KeptModels,
    progress: Callable[[Progress], None] | None = None,
) -> Judgement:
    """Judge the model in use, train the newest one, judge that, and keep it as a version.

    It is used when its Dice, the mean over the kinds of prompt, is not below that of the model in
    use, the person does not want to be asked, and no other model has come into use meanwhile.

    Parameters
    ----------
    folder : Path
        The folder of the site's profile.
    recipe : Recipe
        That the new version is to follow; the model in use may follow another one.
    held_out : sequence of TrainingSample
    train : callable
        Trains a site's newest model in place, calling its second argument after every step.
    steps : int
        That `train` takes.
    round : int
        The federation's round, 0 for training at this site alone.
    ask_first : callable
        Whether the person wants to be asked; asked itself when all else is done.
    cache : FeatureCache
    models : KeptModels
    progress : callable, optional
        Called after every step and every judged case.

    Raises
    ------
    FedSamError
        When files cannot be read or written; the model in use stays.
    """
    versions = versions_of(folder)
    in_use = versions.active_number
    meter = ProgressMeter(steps + 2 * len(held_out), progress)

    def step(_: Progress) -> None:
        meter.step()

    def judged(model: PromptableModel, samples: Sequence[TrainingSample]) -> Evaluation:
        return judge(model, samples, cache, step)

    before, judged_against = _judge_present(folder, recipe, held_out, models, judged)
    # The same network, where the recipe is the same: the model in use has been judged.
    model = model_in_training(folder, recipe, models)
    train(model, step)
    shared, local = model.shared_state(), model.local_state()
    # Judged as it will be used: loaded, for only then does a model answer clicks by itself.
    after = judged(model.load_shared(shared).load_local(local), held_out)
    passed = does_no_worse(after.overall_dice(), before.overall_dice())
    version = versions.save(
        shared, local, round=round, recipe=recipe, dice=after.judged_dice(), passed=passed
    )
    adopt(folder, recipe)
    outcome: Outcome
    if not passed:
        outcome = "unjudged" if after.overall_dice() is None else "worse"
    elif ask_first():
        outcome = "asking"
    else:
        used = versions.replace_active(version.number, instead_of=in_use)
        outcome = "used" if used else "overtaken"
    return Judgement(version.number, judged_against, before, after, outcome)


def _judge_present(
    folder: Path,
    recipe: Recipe,
    held_out: Sequence[TrainingSample],
    models: KeptModels,
    judged: Callable[[PromptableModel, Sequence[TrainingSample]], Evaluation],
) -> tuple[Evaluation, int | None]:
    """Judge what answers now; return the version's number, too, None for the base model."""
    try:
        found = load_site_model(folder, models)
    except FedSamError as error:
        # A window falls back on the base model, too.
        _log.warning("The new model is judged against the base model: %s", error)
        found = None
    if found is None:
        return judged(models.base(recipe.base_model), held_out), None
    model, version = found
    return judged(model, renumbered(held_out, recipe, model.recipe)), version.number
