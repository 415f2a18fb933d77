"""`napari-fedsam benchmark scale`: what a round costs the coordinator, against its sites."""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from napari_fedsam.app.benchmark.environment import environment
from napari_fedsam.app.console import console
from napari_fedsam.app.output_files import ready_file
from napari_fedsam.files import write_text_atomically

if TYPE_CHECKING:
    from napari_fedsam.app.benchmark.scale_measurements import ScaleResult


def scale(
    sites: Annotated[
        str, typer.Option(help="Numbers of sites of the simulation, separated by commas.")
    ] = "10,30,100",
    nodes: Annotated[
        int, typer.Option(min=0, help="Real SuperNodes of the deployment; 0 for none.")
    ] = 8,
    answers: Annotated[
        str,
        typer.Option(
            help="Numbers of made-up sites that answer at once: what the coordinator costs alone."
        ),
    ] = "10,100",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Measure rounds of many tiny sites: seconds, bytes, and the coordinator's memory.

    The folder for temporary files takes some 40 MB for each site and round meanwhile.
    """
    from napari_fedsam.app.benchmark.scale_measurements import (
        measure_coordinator,
        measure_deployment,
        measure_simulation,
    )

    if json_file is not None:
        ready_file(json_file)
    plan = [(measure_coordinator, count) for count in _numbers(answers)]
    plan += [(measure_simulation, count) for count in _numbers(sites)]
    if nodes:
        plan.append((measure_deployment, nodes))
    results: list[ScaleResult] = []
    for measure, count in plan:
        with tempfile.TemporaryDirectory(prefix="napari-fedsam-scale-") as home:
            result = measure(count, rounds, Path(home) / "federation")
        results.append(result)
        console.print(
            f"{result.engine}, {count} sites: {result.seconds:.1f} s a round, of which "
            f"{result.overhead_seconds:.1f} s are not training; {result.peak_mib:.0f} MiB"
        )
    _print(results)
    if json_file is not None:
        figures = {
            "results": [
                dataclasses.asdict(result) | {"overhead_seconds": result.overhead_seconds}
                for result in results
            ],
            "environment": environment(),
        }
        write_text_atomically(json_file, json.dumps(figures, indent=2) + "\n")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number.strip()]


def _print(results: "list[ScaleResult]") -> None:
    table = Table(
        *("engine", "sites", "s a round", "not training", "MB up", "MB down"),
        *("peak MiB", "first round", "last round"),
        box=None,
    )
    for result in results:
        table.add_row(
            result.engine,
            str(result.sites),
            f"{result.seconds:.1f}",
            f"{result.overhead_seconds:.1f}",
            f"{result.bytes_up / 1e6:.0f}",
            f"{result.bytes_down / 1e6:.0f}",
            f"{result.peak_mib:.0f}",
            f"{result.first_round_mib:.0f}",
            f"{result.last_round_mib:.0f}",
        )
    console.print(table)
