"""`napari-fedsam evaluate`: Dice on a manifest's images, per site, as JSON."""

from collections.abc import Callable, Sequence
from typing import Any

from napari_fedsam.cases.case import Structure
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.training.evaluation import Evaluation, ImageResult, PromptKind, evaluate
from napari_fedsam.training.manifest import ManifestRow, load_row
from napari_fedsam.training.segmentation_task import labels_of, structures_of

EMPTY_MASK_RULE = (
    "An image whose true mask is empty has no Dice and is left out of every mean; the pixels that "
    "the model marks on it are listed as its false positives. An empty prediction of a structure "
    "that is there scores 0."
)


def labels_in(task: str, structure: Structure) -> tuple[int, ...]:
    """Return the values that stand for a model's structure in the masks of a task.

    The name tells first: a site may number its structures otherwise than the task does.

    Raises
    ------
    ManifestError
        When the task's masks hold several structures, and none of that name or value.
    """
    name = structure.name.casefold()
    for part in structures_of(task):
        if part.structure.name.casefold() == name:
            return part.labels
    return labels_of(task, structure.value)


def evaluate_rows(
    predictor: Predictor,
    rows: Sequence[ManifestRow],
    prompt: PromptKind,
    *,
    structure: int = 1,
    labels: Sequence[int] = (),
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Segment a manifest's images and report their Dice.

    Parameters
    ----------
    predictor : Predictor
    rows : sequence of ManifestRow
    prompt : {"none", "point", "box"}
        box = the true mask's bounding box; point = the pixel deepest inside its largest
        component.
    structure : int
        The structure's value in a personalised model.
    labels : sequence of int
        The masks' values that stand for it; every value above zero when empty.
    progress : callable, optional
        Called with the fraction done (0..1).

    Returns
    -------
    dict
        `mean_dice`, `sites` (name to `mean_dice` and `n`), `images`, `prompt` and
        `empty_mask_rule`.
    """
    sites: dict[str, list[ImageResult]] = {}
    for done, row in enumerate(rows, start=1):
        # One image at a time: a manifest need not fit into memory.
        images = evaluate(predictor, [load_row(row, structure, labels)], (prompt,)).images
        sites.setdefault(row.site, []).extend(images)
        if progress is not None:
            progress(done / len(rows))
    every = Evaluation(tuple(image for images in sites.values() for image in images))
    return {
        "mean_dice": every.mean_dice(prompt),
        "prompt": prompt,
        "empty_mask_rule": EMPTY_MASK_RULE,
        "sites": {
            site: {
                "mean_dice": Evaluation(tuple(images)).mean_dice(prompt),
                "n": Evaluation(tuple(images)).count(prompt),
            }
            for site, images in sites.items()
        },
        "images": [
            {
                "image": image.id,
                "site": site,
                "group": image.group,
                "dice": image.dice,
                "false_positives": image.false_positives,
            }
            for site, images in sites.items()
            for image in images
        ],
    }
