"""`napari-fedsam benchmark`: methods against each other, and this machine's speed."""

import dataclasses
import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_fedsam.app.benchmark.interactive import interactive
from napari_fedsam.app.benchmark.scale import scale
from napari_fedsam.app.console import STRUCTURE_HELP, console
from napari_fedsam.app.output_files import ready_file, ready_folder
from napari_fedsam.errors import FedSamError
from napari_fedsam.files import write_text_atomically

if TYPE_CHECKING:
    from napari_fedsam.imaging.window import Window

benchmark_app = typer.Typer(
    no_args_is_help=True, help="Measure methods on multi-site data, and this machine's speed."
)


benchmark_app.command()(interactive)
benchmark_app.command()(scale)


@benchmark_app.command()
def federated(
    data: Annotated[Path, typer.Option(help="A manifest (task, site, split, image, mask).")],
    task: Annotated[list[str], typer.Option(help="A task of the manifest; repeatable.")],
    methods: Annotated[str, typer.Option(help="Names, separated by commas; 'base' is untrained.")],
    out: Annotated[Path, typer.Option(help="Where results go; finished runs there are kept.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run.")] = 6,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    protocol: Annotated[
        Literal["in_federation", "unseen_site"],
        typer.Option(help="Each site's own test images, or those of a site left out."),
    ] = "in_federation",
    config: Annotated[
        Path | None, typer.Option(help="JSON with changes to the recipe and variants of methods.")
    ] = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="At most so many training images at a site.")
    ] = None,
    split: Annotated[
        Literal["test", "val"], typer.Option(help="What is measured; val to choose options.")
    ] = "test",
    clicks: Annotated[bool, typer.Option(help="Count clicks, too (takes long).")] = False,
    engine: Annotated[
        Literal["direct", "inprocess", "simulation"],
        typer.Option(help="direct needs no Flower; simulation needs Ray."),
    ] = "direct",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    eval_data: Annotated[
        Path | None, typer.Option(help="A further manifest, to test the final models on.")
    ] = None,
    save_models: Annotated[
        bool, typer.Option("--save-models", help="Keep each site's final model under OUT/models.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on with an interrupted run after its last finished round.")
    ] = True,
    again: Annotated[
        bool, typer.Option("--again", help="Measure finished runs' kept models again.")
    ] = False,
) -> None:
    """Train by every method on every task and measure each site's Dice.

    An interrupted benchmark goes on where it was when the same command is given again.
    """
    from napari_fedsam.app.benchmark.experiment import ExperimentConfig
    from napari_fedsam.app.benchmark.runs import run_benchmark

    run_benchmark(
        data,
        task,
        [name.strip() for name in methods.split(",")],
        out,
        rounds=rounds,
        seeds=_seeds(seeds),
        protocol=protocol,
        config=ExperimentConfig.read(config),
        train_images=train_images,
        split=split,
        clicks=clicks,
        engine=engine,
        device=device,
        further_data=eval_data,
        save_models=save_models,
        resume=resume,
        again=again,
        tell=lambda line: console.print(line, markup=False, highlight=False),
    )


@benchmark_app.command()
def training(
    method: Annotated[str, typer.Option(help="A method's name.")] = "pfedsam",
    images: Annotated[int, typer.Option(min=4, help="Training images.")] = 24,
    plain_steps: Annotated[int, typer.Option(min=2, help="Steps of the plain loop.")] = 12,
    compared_steps: Annotated[
        int, typer.Option(min=1, help="Steps over which the losses are compared.")
    ] = 50,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Compare our trainer's speed, losses and memory with a plain loop's, on this machine."""
    from rich.table import Table

    from napari_fedsam.app.benchmark.training_speed import measure_training_speed

    if json_file is not None:
        ready_file(json_file)
    speed = measure_training_speed(
        method, images=images, plain_steps=plain_steps, compared_steps=compared_steps
    )
    table = Table("", "images/s", "images/s, cache filled", "peak MiB", box=None)
    for name, side in (("this trainer", speed.cached), ("plain loop", speed.plain)):
        table.add_row(
            name,
            f"{side.images_per_second:.2f}",
            f"{side.warm_images_per_second:.2f}",
            f"{side.peak_mib:.0f}",
        )
    console.print(", ".join(f"{key} {value}" for key, value in speed.machine.items()))
    console.print(table)
    differences = speed.loss_differences
    console.print(
        f"Speed-up {speed.speedup:.1f} with the cache filled on the way; over "
        f"{len(differences)} steps the losses differ by {100 * median(differences):.2f} % in the "
        f"median and {100 * max(differences):.2f} % at most."
    )
    if json_file is not None:
        figures = {
            "method": method,
            "speedup": speed.speedup,
            "images_per_second": speed.cached.images_per_second,
            "warm_images_per_second": speed.cached.warm_images_per_second,
            "plain_images_per_second": speed.plain.images_per_second,
            "peak_mib": speed.cached.peak_mib,
            "plain_peak_mib": speed.plain.peak_mib,
            "loss_differences": differences,
            "machine": speed.machine,
        }
        write_text_atomically(json_file, json.dumps(figures, indent=2) + "\n")


@benchmark_app.command()
def propagation(
    scan: Annotated[Path, typer.Option(help="The scan.")],
    mask: Annotated[Path, typer.Option(help="Its true mask: what is above 0.")],
    target: Annotated[float, typer.Option(min=0, max=1, help="Dice to be reached.")] = 0.95,
    prompts: Annotated[int, typer.Option(min=1, help="Give up after so many prompts.")] = 20,
    level: Annotated[str, typer.Option(help="LEVEL,WIDTH of the window.")] = "",
    model: Annotated[str, typer.Option(help="A model's name, or 'site'.")] = "lite_medsam",
    structure: Annotated[str | None, typer.Option(help=STRUCTURE_HELP)] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the numbers to this file.")
    ] = None,
) -> None:
    """Count the prompts of a simulated person who propagates from one prompted slice."""
    from napari_fedsam.annotation.model_source import ModelSource
    from napari_fedsam.app.benchmark.propagation import count_prompts, table_of
    from napari_fedsam.app.structure_choice import chosen_structure
    from napari_fedsam.settings import home

    if json_file is not None:
        ready_file(json_file)
    window = _window(level) if level else None
    loaded = ModelSource(home()).load(model)
    chosen = chosen_structure(loaded.predictor, structure)
    steps = count_prompts(scan, mask, loaded, chosen, window, target=target, most=prompts)
    console.print(table_of(steps))
    reached = steps[-1].dice >= target
    outcome = f"{steps[-1].prompts} prompts" if reached else f"not within {prompts} prompts"
    console.print(f"Dice {target:g}: {outcome}. Research use only.", markup=False)
    if json_file is not None:
        report: dict[str, Any] = {"target": target, "reached": reached}
        report["steps"] = [dataclasses.asdict(step) for step in steps]
        write_text_atomically(json_file, json.dumps(report, indent=2) + "\n")


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        message = f"'{text}' is no list of whole numbers, such as 0,1,2"
        raise typer.BadParameter(message, param_hint="--seeds") from None


def _window(text: str) -> "Window":
    from napari_fedsam.imaging.window import Window

    try:
        level, width = (float(part) for part in text.split(","))
        return Window.from_level(level, width)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not LEVEL,WIDTH", param_hint="--level") from None


@benchmark_app.command()
def poisoning(
    out: Annotated[Path, typer.Option(help="A new folder for everything that is written.")],
    data: Annotated[
        Path | None, typer.Option(help="A manifest; the embedded sample by default.")
    ] = None,
    task: Annotated[str, typer.Option(help="A task of the manifest.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each run.")] = 2,
    train_images: Annotated[int, typer.Option(min=1, help="Training images of a site.")] = 8,
    held_out: Annotated[int, typer.Option(min=1, help="Held-out images of a site.")] = 12,
    epochs: Annotated[float, typer.Option(min=0.1, help="Passes per round.")] = 6,
) -> None:
    """Poison one site of five, and measure the others' Dice under each way to aggregate."""
    from rich.table import Table

    from napari_fedsam.app.benchmark import poisoning as measured

    if out.exists():
        raise FedSamError(f"{out} exists already; choose another folder.")
    structures, sites = (
        measured.sample_sites(train_images, held_out)
        if data is None
        else measured.manifest_sites(data, task, train_images, held_out)
    )
    ready_folder(out)
    federation = measured.PoisonedFederation(
        measured.recipe_for_poisoning(structures, rounds, epochs), sites, out / "updates"
    )
    runs = []
    for run in federation.runs():
        console.print(f"{run}", markup=False, highlight=False)
        runs.append(run)
    table = Table("defence", "attack", "Dice", "against", "left out", box=None)
    for run in runs:
        table.add_row(
            run.defence,
            run.attack or "the honest sites alone",
            f"{run.dice:.3f}",
            f"{run.dice - runs[0].dice:+.3f}",
            f"{run.left_out} of {rounds}",
        )
    console.print(table)
    figures = [dataclasses.asdict(run) for run in runs]
    write_text_atomically(out / "poisoning.json", json.dumps(figures, indent=2) + "\n")


@benchmark_app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder of 'benchmark federated'.")],
    out: Annotated[Path | None, typer.Option(help="The page; FOLDER.md by default.")] = None,
) -> None:
    """Write a page of tables and figures from a benchmark's results."""
    from napari_fedsam.app.benchmark.report import write_report

    page = folder.with_suffix(".md") if out is None else ready_file(out)
    write_report(folder, page)
    console.print(f"{page}", markup=False)
