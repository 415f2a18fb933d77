"""`napari-fedsam benchmark interactive`: what the person who clicks waits for.

Everything is measured side by side in one run: segment-anything's `SamPredictor` drives the same
weights, bare napari scrolls the same scan, and the machine's matrix rate gives the floor.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from napari_fedsam.app.console import console
from napari_fedsam.app.output_files import ready_file
from napari_fedsam.files import write_text_atomically

Report = dict[str, Any]

_WINDOW_ROWS = (
    ("click_to_pixels_ms", "click to pixels"),
    ("click_to_pixels_rested_ms", "  after the cursor has rested for 0.3 s"),
    ("click_to_pixels_training_ms", "click to pixels, while training"),
    ("click_to_pixels_rested_training_ms", "  after the cursor has rested for 0.3 s"),
    ("gui_stall_ms", "stalls beyond bare napari's, while training"),
)


def interactive(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the numbers to this file.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Clicks and prompts of each kind; images a fifth of it.")
    ] = 40,
    vit_b: Annotated[
        bool, typer.Option(help="Also ViT-B, with random weights in the official layout.")
    ] = True,
    window: Annotated[bool, typer.Option(help="Also click and scroll in a napari window.")] = True,
) -> None:
    """Measure encoding, prompts, click to pixels, and stalls of the window."""
    from napari_fedsam.app.benchmark.interactive_measurements import model_report, window_report

    if json_file is not None:
        ready_file(json_file)
    report = model_report(repeats, vit_b=vit_b)
    if window:
        report |= window_report(repeats)
    if json_file is not None:
        write_text_atomically(json_file, json.dumps(report, indent=2) + "\n")
    _print(report)


def _rows(report: Report) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, found in report["encoding"].items():
        times = f"{found['plain_ms']['p50']} to {found['ours_ms']['p50']} ms"
        rows.append((f"encoding, {name}", f"{report['encode_speedup'][name]} x ({times})"))
        rows.append(("  of the floor reached", f"{found['floor_fraction']:.0%}"))
    prompts = report["prompt_ms"]
    text = f"{report['prompt_speedup']} x ({prompts['sam_predictor']['p50']} to "
    rows.append(("a box on an encoded slice", text + f"{prompts['ours']['p50']} ms)"))
    rows.append(("one click, a box-only model", _listed(prompts["one_click_search"])))
    rows += [(label, _listed(report[key])) for key, label in _WINDOW_ROWS if key in report]
    rates = report["matrix_gflops"]
    rows.append(("matrix rate", f"bf16 {rates['bf16']}, fp32 {rates['fp32']} GFLOP/s"))
    return rows


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value} ms" for name, value in values.items())


def _print(report: Report) -> None:
    table = Table("what", "measured")
    for what, measured in _rows(report):
        table.add_row(what, measured)
    console.print(table)
    console.print(f"{report['threads']} threads. Research use only.", markup=False)
