"""Measuring a model on a site's held-out images, into the tables of a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.app.benchmark.results import RunTables
from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.training.click_evaluation import clicks_to, dice_after_clicks
from napari_fedsam.training.evaluation import PromptKind, prompts_for
from napari_fedsam.training.metrics import dice
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.surface_metrics import surface_metrics

_TARGETS = {"noc85": 0.85, "noc90": 0.90}

DistanceUnit = Literal["mm", "pixels"]
Encode = Callable[[NDArray[np.uint8]], ImageEmbedding]


class HeldOutMeasurement:
    """One site's images under one model.

    Parameters
    ----------
    predictor : Predictor
    encode : callable
        Encodes an image for the predictor.
    samples : sequence of TrainingSample
    tables : RunTables
        Receives the numbers.
    structures : mapping of int to str
        Names by value.
    site : str
        What the tables call the images' site.
    number : int
        The round.
    unit : {"mm", "pixels"}
        Of distances between outlines.
    """

    def __init__(
        self,
        predictor: Predictor,
        encode: Encode,
        samples: Sequence[TrainingSample],
        tables: RunTables,
        structures: Mapping[int, str],
        *,
        site: str,
        number: int,
        unit: DistanceUnit = "pixels",
    ) -> None:
        self._predictor = predictor
        self._encode = encode
        self._samples = samples
        self._tables = tables
        self._structures = structures
        self._unit: DistanceUnit = unit
        self._site = site
        self._number = number

    def prompts(self, kinds: Sequence[PromptKind], *, images: bool, protocol: str = "") -> None:
        """Measure Dice by kind of prompt.

        Parameters
        ----------
        kinds : sequence of {"none", "box", "point"}
        images : bool
            Whether each image's numbers are kept, too, and outlines are compared.
        protocol : str
            By default that of the run.
        """
        values: dict[tuple[str, PromptKind, str], list[float]] = {}
        for sample in self._samples:
            embedding = self._encode(sample.image)
            structure = self._structures[sample.structure]
            for kind in kinds:
                given = prompts_for(sample, kind)
                if given is None:
                    continue
                answer = self._predictor.predict(embedding, given, structure=sample.structure)
                surfaces: DistanceUnit | None = None
                if images and kind == "none":
                    surfaces = self._unit
                for metric, value in _measured(answer.mask, sample, surfaces):
                    values.setdefault((structure, kind, metric), []).append(value)
                    if images:
                        self._add_image(metric, value, sample, kind)
        for (structure, kind, metric), found in values.items():
            self._add_mean(metric, found, structure, kind, protocol)

    def clicks(self, *, proposes: bool) -> None:
        """Count simulated corrective clicks.

        Parameters
        ----------
        proposes : bool
            Whether the first comes after the model's proposal.
        """
        counts: dict[tuple[str, str], list[float]] = {}
        for sample in self._samples:
            if sample.absent:
                continue
            reached = dice_after_clicks(
                self._predictor,
                sample,
                target=max(_TARGETS.values()),
                proposes=proposes,
                encode=self._encode,
            )
            for metric, target in _TARGETS.items():
                count = clicks_to(reached, target)
                counts.setdefault((self._structures[sample.structure], metric), []).append(count)
                self._add_image(metric, count, sample, "clicks")
        for (structure, metric), found in counts.items():
            self._add_mean(metric, found, structure, "clicks", "")

    def _add_image(self, metric: str, value: float, sample: TrainingSample, prompt: str) -> None:
        self._tables.add_image(
            metric,
            value,
            sample=sample,
            site=self._site,
            structure=self._structures[sample.structure],
            prompt=prompt,
        )

    def _add_mean(
        self, metric: str, values: Sequence[float], structure: str, prompt: str, protocol: str
    ) -> None:
        self._tables.add(
            metric,
            float(np.mean(values)),
            number=self._number,
            site=self._site,
            structure=structure,
            prompt=prompt,
            protocol=protocol,
        )


def distance_unit(samples: Sequence[TrainingSample]) -> DistanceUnit:
    """Return in what a task's distances are measured: millimetres only where all images tell."""
    return "mm" if all(sample.spacing is not None for sample in samples) else "pixels"


def _measured(
    mask: NDArray[np.bool_], sample: TrainingSample, surfaces: DistanceUnit | None
) -> list[tuple[str, float]]:
    """Return metrics with their values; none where the structure is absent.

    Outlines are compared only where a unit is given.
    """
    overlap = dice(mask, sample.mask)
    if overlap is None:
        return []
    spacing = sample.spacing if surfaces == "mm" else None
    surface = surface_metrics(mask, sample.mask, spacing) if surfaces else None
    if surface is None:
        return [("dice", overlap)]
    return [("dice", overlap), ("hd95", surface.hd95), ("surface_dice", surface.surface_dice)]
