"""What a site does for a round: train on its cases, then judge the aggregated model."""

import datetime
from dataclasses import dataclass

from flwr.app import MetricRecord, RecordDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.federation.kept_models import KeptModels
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
from napari_fedsam.files import atomic_path
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.aggregation import update_between
from napari_fedsam.training.evaluation import JUDGED_PROMPTS
from napari_fedsam.training.feature_cache import FeatureCache
from napari_fedsam.training.judging import does_no_worse, judge
from napari_fedsam.training.local_update import local_update
from napari_fedsam.training.samples import samples_from_store
from napari_fedsam.training.site_model import load_site_model, model_in_training
from napari_fedsam.training.update_rounding import round_update
from napari_fedsam.training.versions import VersionStore

# Messages are answered one at a time.
_models = KeptModels()


@dataclass(frozen=True)
class Judgement:
    """A round's personalised model against the one in use, on this site's held-out cases.

    Attributes
    ----------
    round : int
        The round.
    candidate : float or None
        Mean Dice of the new model over the kinds of prompt, None without held-out cases.
    present : float or None
        The same of the model in use.
    version_in_use : int
        Its version, 0 for the base model.
    ask_first : bool
        Whether the person wants to be asked before it is used.
    """

    round: int
    candidate: float | None
    present: float | None
    version_in_use: int
    ask_first: bool = False

    @property
    def passed(self) -> bool:
        """Whether the new model did no worse."""
        return does_no_worse(self.candidate, self.present)

    @property
    def take(self) -> bool:
        """Whether it is to be used at once."""
        return self.passed and not self.ask_first

    @property
    def message(self) -> str:
        """What the user is told."""
        in_use = f"version {self.version_in_use}" if self.version_in_use else "the base model"
        if self.candidate is None:
            return (
                f"Round {self.round}: the new model is kept but not used, for there are no "
                f"held-out cases with the structure to judge it; {in_use} stays in use."
            )
        dice = f"Dice {self.candidate:.3f} on held-out cases"
        if self.take:
            return f"Round {self.round}: the new model is in use ({dice})."
        if self.passed:
            return (
                f"Round {self.round}: the new model did no worse ({dice}, against "
                f"{self.present or 0.0:.3f} now) and waits for your yes in the section Model; "
                f"{in_use} stays in use."
            )
        return (
            f"Round {self.round}: the new model is kept but not used ({dice}, against "
            f"{self.present or 0.0:.3f} now); {in_use} stays in use."
        )


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
            f"This site has {len(samples)} training cases of {_structures(recipe)} and the "
            f"federation asks for at least {recipe.minimum_cases}; accept more corrections to take "
            "part.",
        )
    _check_settings(content, files, len(samples))
    model = model_in_training(files.profile_folder, recipe, _models.untrained(recipe))
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
    _keep_pending(model.local_state(), files, number, recipe.hash)
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

    The personalised model is judged on the held-out cases and saved as a version. It becomes the
    active one when its Dice, the mean over the kinds of prompt, is not below that of the model in
    use (the base model before the first version), and the person does not want to be asked. Without
    held-out cases it is saved and not activated.

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
    cache = FeatureCache(files.feature_cache)
    in_use, active = load_site_model(files.profile_folder, recipe, _models.untrained(recipe))
    received = read_shared(content, in_use.shared_spec())
    held_out = samples_from_store(CaseStore(files.cases), recipe, "val")
    # Before the first version the site uses the base model itself.
    present = judge(in_use if active else _models.base(recipe.base_model), held_out, cache)
    # The same network: the model in use has been judged.
    model = model_in_training(files.profile_folder, recipe, _models.untrained(recipe))
    model.load_shared(received)
    pending = _pending(files, number, recipe.hash)
    if pending is not None:
        model.load_local(pending)
    samples = samples_from_store(CaseStore(files.cases), recipe, "train")
    if samples:
        local_update(
            model,
            samples,
            seed=recipe.seed,
            moment="personalise",
            round_number=number,
            progress=progress_writer(files.status),
            cache=cache,
        )
    candidate = judge(model, held_out, cache)
    dice: dict[str, float | None] = {kind: candidate.mean_dice(kind) for kind in JUDGED_PROMPTS}

    versions = VersionStore(files.versions)
    judgement = Judgement(
        number,
        candidate.overall_dice(),
        present.overall_dice(),
        active.number if active else 0,
        SiteSettings.read(files.settings).ask_first,
    )
    version = versions.save(
        model.shared_state(),
        model.local_state(),
        round=number,
        recipe_hash=recipe.hash,
        dice=dice,
        passed=judgement.passed,
    )
    if judgement.take:
        versions.activate(version.number)
    files.pending.unlink(missing_ok=True)
    history = SiteStatus.read(files.status).dice_history
    if judgement.candidate is not None:
        history = (*history, (number, judgement.candidate))
    update_status(
        files.status,
        phase=Phase.UP_TO_DATE,
        progress=1.0,
        message=f"{judgement.message}{left_out}",
        dice_history=history,
    )
    metrics = {
        # Cases where the structure is absent have no Dice.
        EXAMPLES_KEY: candidate.count("none"),
        **{f"dice-{kind}": value or 0.0 for kind, value in dice.items()},
        "activated": int(judgement.take),
    }
    return RecordDict(
        {METRICS_KEY: MetricRecord(metrics), CONFIG_KEY: config_record(recipe.hash, number)}
    )


def _structures(recipe: Recipe) -> str:
    return " and ".join(structure.name for structure in recipe.structures)


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
    with atomic_path(files.left_over) as temporary:
        save_file(left_over, temporary, metadata={"round": str(number), "recipe": recipe.hash})
    return sent


def _left_over(files: SiteFiles, number: int, recipe_hash: str) -> dict[str, Tensor] | None:
    """Return what rounding lost before this round, None when nothing is known."""
    if not files.left_over.exists():
        return None
    with safe_open(files.left_over, framework="pt") as stored:
        kept = stored.metadata()
        # A round that is asked for again has already used it.
        if kept["recipe"] != recipe_hash or int(kept["round"]) >= number:
            return None
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping


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


def _keep_pending(
    state: dict[str, Tensor], files: SiteFiles, number: int, recipe_hash: str
) -> None:
    with atomic_path(files.pending) as temporary:
        save_file(state, temporary, metadata={"round": str(number), "recipe": recipe_hash})


def _pending(files: SiteFiles, number: int, recipe_hash: str) -> dict[str, Tensor] | None:
    """Return the local parameters of exactly this round, if this site trained in it."""
    if not files.pending.exists():
        return None
    with safe_open(files.pending, framework="pt") as stored:
        if stored.metadata() != {"round": str(number), "recipe": recipe_hash}:
            return None
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - it is no mapping
