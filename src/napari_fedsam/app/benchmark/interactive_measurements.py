"""The numbers of `napari-fedsam benchmark interactive`."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_fedsam.annotation.sample import load_sample
from napari_fedsam.app.benchmark.model_speed import (
    compare_encoding,
    compare_prompts,
    encoder_flops,
    floor_fraction,
    in_turns,
    matrix_rates,
    percentiles,
)
from napari_fedsam.app.benchmark.training_load import training_in_background
from napari_fedsam.app.benchmark.window_speed import MeasuredWindow, bare_scrolling, stall_excess
from napari_fedsam.app.virtual_display import display_or_xvfb
from napari_fedsam.imaging.window import apply_window, default_window
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Prompts
from napari_fedsam.sam.registry import load_model
from napari_fedsam.sam.segment_anything_models import SegmentAnything

Report = dict[str, Any]

_RESTED_MS = 300


def model_report(repeats: int, *, vit_b: bool) -> Report:
    """Measure encoding and prompts without a window."""
    image, box = _sample_slice()
    rates = matrix_rates()
    predictor = Predictor(load_model())
    models: dict[str, Predictor] = {"lite_medsam": predictor}
    if vit_b:
        models["vit_b"] = Predictor(_random_vit_b())
    speedups: dict[str, float | None] = {"lite_medsam": None, "vit_b": None}
    details: Report = {}
    for name, each in models.items():
        count = max(1, repeats // 5 if name == "lite_medsam" else repeats // 20)
        found = compare_encoding(each, image, count)
        speedups[name] = found.speedup
        ours = percentiles(found.ours, 50, 95)
        details[name] = {
            "plain_ms": percentiles(found.theirs, 50, 95),
            "ours_ms": ours,
            "floor_fraction": floor_fraction(encoder_flops(each.model), rates, ours["p50"]),
        }
    prompts = compare_prompts(predictor, image, Prompts(box=box), repeats)
    embedding = predictor.encode(image)
    middle = np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]], np.float32)
    click = Prompts(middle, np.array([True]))
    searched = in_turns(lambda: None, lambda: predictor.predict(embedding, click), repeats)
    return {
        "encode_speedup": speedups,
        "prompt_speedup": prompts.speedup,
        "encoding": details,
        "prompt_ms": {
            "sam_predictor": percentiles(prompts.theirs, 50, 95),
            "ours": percentiles(prompts.ours, 50, 95),
            "one_click_search": percentiles(searched.ours, 50, 95),
        },
        "matrix_gflops": rates,
        "threads": torch.get_num_threads(),
    }


def _sample_slice() -> tuple[Any, tuple[float, float, float, float]]:
    """Return the middle slice of the embedded sample at 512 x 512, and a box on it."""
    scan = load_sample().scan
    pixels = apply_window(scan.pixels[len(scan.pixels) // 2], default_window(scan))
    image = np.kron(pixels, np.ones((6, 6), np.uint8))[:512, :512]
    return np.ascontiguousarray(image), (150.0, 150.0, 350.0, 380.0)


def _random_vit_b() -> SegmentAnything:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SegmentAnything("vit_b", "vit_b").eval()
        for name, parameter in model.image_encoder.named_parameters():
            if "pos" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def window_report(repeats: int) -> Report:
    """Measure clicks and stalls in a real window, alone and beside local training."""
    scan = load_sample().scan
    slices = min(60, max(10, repeats))
    points = np.random.default_rng(0).uniform((35, 40), (62, 75), (repeats, 2))
    report: Report = {}
    with display_or_xvfb(), tempfile.TemporaryDirectory() as folder:
        bare = bare_scrolling(scan, slices)
        window = MeasuredWindow(scan, Path(folder))
        try:
            window.clicks(points[:2])
            report["click_to_pixels_ms"] = percentiles(window.clicks(points), 50, 95)
            rested = window.clicks(points, _RESTED_MS)
            report["click_to_pixels_rested_ms"] = percentiles(rested, 50, 95)
            with training_in_background():
                times = window.clicks(points)
                report["click_to_pixels_training_ms"] = percentiles(times, 50, 95)
                rested = window.clicks(points, _RESTED_MS)
                report["click_to_pixels_rested_training_ms"] = percentiles(rested, 50, 95)
                stalls = window.scroll_and_click(slices, (48.0, 58.0))
        finally:
            window.close()
    report["gui_stall_ms"] = stall_excess(stalls, bare)
    report["bare_napari_stall_ms"] = _absolute(bare)
    report["plugin_stall_ms"] = _absolute(stalls)
    return report


def _absolute(stalls: list[float]) -> dict[str, float]:
    return {**percentiles(stalls, 99), "max": round(max(stalls), 2)}
