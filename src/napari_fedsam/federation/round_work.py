"""What a site does for a round: train on its cases, then judge the aggregated model."""

import datetime
from collections.abc import Callable

from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.between_messages import keep_tensors, kept_tensors
from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.federation.messages import (
    CONFIG_KEY,
    EXAMPLES_KEY,
    METRICS_KEY,
    SHARED_KEY,
    check_instruction,
    check_recipe,
    config_record,
    left_out_of,
    read_shared,
    round_of,
    shared_or_own,
)
from napari_fedsam.federation.packed_parameters import pack_parameters
from napari_fedsam.federation.privacy import privatise
from napari_fedsam.federation.privacy_ledger import check_privacy, count_update
from napari_fedsam.federation.room import check_room
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.site_settings import SiteSettings
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import SiteStatus, progress_writer, update_status
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.aggregation import update_between
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.kept_models import KeptModels
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.new_version import make_version
from napari_fedsam.training.progress import Progress
from napari_fedsam.training.samples import samples_from_store, structure_names
from napari_fedsam.training.schedule import planned_steps
from napari_fedsam.training.site_model import model_in_training
from napari_fedsam.training.update_rounding import round_update

# Messages are answered one at a time.
_models = KeptModels()


def train_round(content: RecordDict, files: SiteFiles) -> RecordDict:
    """Train on this site's cases, starting from the received shared parameters.

    The new local parameters stay in the site's folder until the round is judged.

    Parameters
    ----------
    content : RecordDict
        Shared parameters (or their digest, where this site has them), recipe hash and number of
        the round.
    files : SiteFiles
        The site's files.

    Returns
    -------
    RecordDict
        The updated shared parameters and aggregate numbers, and nothing else.

    Raises
    ------
    RefusedMessageError
        When the message does not pass the checks, the site has too few cases, or it has made all
        the updates with noise that were agreed.
    """
    recipe = _agreed_recipe(content, files)
    check_room(files.site)
    check_privacy(files.privacy_ledger, recipe)
    number = round_of(content)
    message = _told_left_out(content).lstrip()
    update_status(files.status, phase=Phase.TRAINING, progress=0.0, round=number, message=message)
    samples = samples_from_store(CaseStore(files.cases), recipe, "train")
    if len(samples) < recipe.minimum_cases:
        raise RefusedMessageError(
            ReplyCode.TOO_FEW_CASES,
            f"This site has {len(samples)} training cases of {structure_names(recipe)} and the "
            f"federation asks for at least {recipe.minimum_cases}; accept more corrections to take "
            "part.",
        )
    _check_settings(content, files, len(samples))
    model = model_in_training(files.profile_folder, recipe, _models)
    received = shared_or_own(content, model.shared_state(), model.shared_spec())
    model.load_shared(received)
    update = local_update(
        model,
        samples,
        seed=recipe.seed,
        round_number=number,
        progress=progress_writer(files.status),
        cache=FeatureCache(files.feature_cache),
        resume=files.unfinished_training,
    )
    keep_tensors(files.pending, model.local_state(), number, recipe.hash)
    update_status(
        files.status,
        phase=Phase.SENDING,
        progress=1.0,
        rounds_joined=SiteStatus.read(files.status).rounds_joined + 1,
        trained_cases=len(samples),
        trained_round=number,
        message="",
    )
    metrics = {
        EXAMPLES_KEY: update.samples,
        "loss": float(update.loss),
        "seconds": float(update.seconds),
    }
    return RecordDict(
        {
            SHARED_KEY: pack_parameters(
                _to_send(model.shared_state(), received, recipe, files, number)
            ),
            METRICS_KEY: MetricRecord(metrics),
            CONFIG_KEY: config_record(recipe.hash, number),
        }
    )


def judge_round(content: RecordDict, files: SiteFiles) -> RecordDict:
    """Fit this site's local parameters to the aggregated ones, and judge both together.

    The personalised model is judged on the held-out cases against the model in use and saved as a
    version (see `make_version`). Without held-out cases it is saved and not activated.

    Parameters
    ----------
    content : RecordDict
        Aggregated shared parameters, recipe hash and number of the round.
    files : SiteFiles
        The site's files.

    Returns
    -------
    RecordDict
        Dice, number of held-out cases and whether the model is in use, and nothing else.

    Raises
    ------
    RefusedMessageError
        When the message does not pass the checks, or the site takes no part now.
    """
    recipe = _agreed_recipe(content, files)
    check_room(files.site)
    _check_settings(content, files)
    number = round_of(content)
    message = "Fitting the new model to this site and judging it on held-out cases."
    left_out = _told_left_out(content)
    update_status(files.status, phase=Phase.TRAINING, progress=0.0, round=number, message=message)
    received = read_shared(content, _models.untrained(recipe).shared_spec())
    store = CaseStore(files.cases)
    samples = samples_from_store(store, recipe, "train")
    cache = FeatureCache(files.feature_cache)

    def fit(model: PersonalisedModel, step: Callable[[Progress], None]) -> None:
        model.load_shared(received)
        pending = _pending(files, number, recipe.hash)
        if pending is not None:
            model.load_local(pending)
        if samples:
            local_update(
                model,
                samples,
                seed=recipe.seed,
                moment="personalise",
                round_number=number,
                progress=step,
                cache=cache,
            )

    judgement = make_version(
        files.profile_folder,
        recipe,
        samples_from_store(store, recipe, "val"),
        fit,
        steps=planned_steps(recipe, samples, "personalise", number),
        round=number,
        ask_first=lambda: SiteSettings.read(files.settings).ask_first,
        cache=cache,
        models=_models,
        progress=progress_writer(files.status),
    )
    files.pending.unlink(missing_ok=True)
    history = SiteStatus.read(files.status).dice_history
    dice = judgement.after.overall_dice()
    if dice is not None:
        history = (*history, (number, dice))
    update_status(
        files.status,
        phase=Phase.UP_TO_DATE,
        progress=1.0,
        message=f"Round {number}: {judgement.message}{left_out}",
        dice_history=history,
    )
    metrics = {
        # Cases where the structure is absent have no Dice.
        EXAMPLES_KEY: judgement.after.count("none"),
        **{f"dice-{kind}": each or 0.0 for kind, each in judgement.after.judged_dice().items()},
        "activated": int(judgement.outcome == "used"),
    }
    return RecordDict(
        {METRICS_KEY: MetricRecord(metrics), CONFIG_KEY: config_record(recipe.hash, number)}
    )


def _check_settings(content: RecordDict, files: SiteFiles, cases: int | None = None) -> None:
    """Decline the round when this site's user wants it so; new cases are asked for once a round."""
    settings, status = SiteSettings.read(files.settings), SiteStatus.read(files.status)
    new = settings.new_cases
    if cases is not None and round_of(content) != status.trained_round:
        new = cases - status.trained_cases
    now = datetime.datetime.now().astimezone().time()
    reason = settings.declines(now, new)
    if reason:
        raise RefusedMessageError(ReplyCode.DECLINED, f"{reason}{_told_left_out(content)}")


def _told_left_out(content: RecordDict) -> str:
    code = left_out_of(content)
    if code is None:
        return ""
    return f" The coordinator left out this site's last update: {code.explanation}."


def _to_send(
    trained: dict[str, Tensor],
    received: dict[str, Tensor],
    recipe: Recipe,
    files: SiteFiles,
    number: int,
) -> dict[str, Tensor]:
    """Return the shared parameters, or what was changed where the recipe wants it rounded."""
    privacy, precision = recipe.federation.privacy, recipe.federation.precision
    if privacy is not None and privacy.noise == "local":
        count_update(files.privacy_ledger, recipe)
        trained = privatise(trained, received, privacy)
    if precision == "float32":
        return trained
    update = update_between(received, trained)
    left_over = _left_over(files, number, recipe.hash)
    sent, left_over = round_update(update, precision, left_over)
    keep_tensors(files.left_over, left_over, number, recipe.hash)
    return sent


def _left_over(files: SiteFiles, number: int, recipe_hash: str) -> dict[str, Tensor] | None:
    """Return what rounding lost before this round, None when nothing is known."""
    kept = kept_tensors(files.left_over, recipe_hash)
    # A round that is asked for again has already used it.
    return kept[1] if kept is not None and kept[0] < number else None


def _agreed_recipe(content: RecordDict, files: SiteFiles) -> Recipe:
    if not files.recipe.exists():
        raise RefusedMessageError(
            ReplyCode.NOT_IN_FEDERATION,
            "This site has no recipe; import the coordinator's invitation.",
        )
    recipe = Recipe.read(files.recipe)
    check_recipe(content, recipe.hash)
    check_instruction(content)
    return recipe


def _pending(files: SiteFiles, number: int, recipe_hash: str) -> dict[str, Tensor] | None:
    """Return the local parameters of exactly this round, if this site trained in it."""
    kept = kept_tensors(files.pending, recipe_hash)
    return kept[1] if kept is not None and kept[0] == number else None
