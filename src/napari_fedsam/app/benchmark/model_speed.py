"""How fast images are encoded and prompts answered, against segment-anything's own predictor."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from napari_fedsam.sam.predictor import Predictor, has_fast_bf16
from napari_fedsam.sam.prompts import Prompts
from napari_fedsam.sam.protocol import PromptableModel


def milliseconds(action: Callable[[], object]) -> float:
    """Run an action and return how long it took."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


def percentiles(times: Sequence[float], *wanted: int) -> dict[str, float]:
    """Return percentiles as {"p50": ...}, rounded to a hundredth."""
    return {f"p{q}": round(float(np.percentile(times, q)), 2) for q in wanted}


@dataclass(frozen=True)
class Comparison:
    """Times (ms) of segment-anything's way and of ours, taken in turns."""

    theirs: list[float]
    ours: list[float]

    @property
    def speedup(self) -> float:
        """Ratio of the medians."""
        return round(float(np.median(self.theirs) / np.median(self.ours)), 2)


def in_turns(theirs: Callable[[], object], ours: Callable[[], object], count: int) -> Comparison:
    """Time two actions alternately, so that both meet the same disturbances."""
    theirs()
    ours()
    times = [(milliseconds(theirs), milliseconds(ours)) for _ in range(count)]
    return Comparison([a for a, _ in times], [b for _, b in times])


def official_predictor(model: PromptableModel) -> Any:
    """Return segment-anything's `SamPredictor` on a model's very weights, in float32."""
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam

    parts: Any = model
    official = Sam(parts.image_encoder, parts.prompt_encoder, parts.mask_decoder)
    if not hasattr(official.image_encoder, "img_size"):
        official.image_encoder.img_size = model.input_size
    return SamPredictor(official.eval())


def compare_encoding(predictor: Predictor, image: NDArray[np.uint8], count: int) -> Comparison:
    """Time the plain float32 module against `Predictor.encode`, which also preprocesses."""
    model = predictor.model
    pixels = model.preprocess(image)

    @torch.no_grad()
    def plain() -> None:
        model.image_encoder(pixels)

    return in_turns(plain, lambda: predictor.encode(image), count)


def compare_prompts(
    predictor: Predictor, image: NDArray[np.uint8], prompts: Prompts, count: int
) -> Comparison:
    """Time `SamPredictor.predict` against `Predictor.predict` for a box on an encoded image."""
    official = official_predictor(predictor.model)
    rgb = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    official.set_image(rgb)
    embedding = predictor.encode(image)
    box = np.array(prompts.box)
    return in_turns(
        lambda: official.predict(box=box, multimask_output=False),
        lambda: predictor.predict(embedding, prompts),
        count,
    )


def encoder_flops(model: PromptableModel) -> int:
    """Return the floating-point operations of one image's encoding."""
    pixels = torch.zeros(1, 3, model.input_size, model.input_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.image_encoder(pixels)
    return int(counter.get_total_flops())


def matrix_rate(dtype: torch.dtype, side: int = 2048) -> float:
    """Return the best rate in GFLOP/s at which matrices of a type are multiplied here."""
    a = torch.randn(side, side).to(dtype)
    fastest = min(milliseconds(lambda: a @ a) for _ in range(8))
    return round(2 * side**3 / fastest / 1e6, 1)


def matrix_rates() -> dict[str, float]:
    """Return the rates of bfloat16 and float32 matrices, in GFLOP/s."""
    return {"bf16": matrix_rate(torch.bfloat16), "fp32": matrix_rate(torch.float32)}


def floor_fraction(flops: int, rates: dict[str, float], encoding_ms: float) -> float:
    """Return which part of the time is what the products take at the matrix rate."""
    rate = rates["bf16"] if has_fast_bf16(torch.device("cpu")) else rates["fp32"]
    return round(flops / (rate * 1e6) / encoding_ms, 3)
