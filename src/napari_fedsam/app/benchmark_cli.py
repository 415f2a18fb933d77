"""`napari-fedsam benchmark`: methods against each other, and this machine's speed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_fedsam.app.console import console

benchmark_app = typer.Typer(
    no_args_is_help=True, help="Measure methods on multi-site data, and this machine's speed."
)


@benchmark_app.command()
def federated(
    data: Annotated[Path, typer.Option(help="A manifest (task, site, split, image, mask).")],
    task: Annotated[list[str], typer.Option(help="A task of the manifest; repeatable.")],
    methods: Annotated[str, typer.Option(help="Names, separated by commas.")],
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Train by every method on every task and measure each site's Dice.

    An interrupted benchmark goes on where it was when the same command is given again.
    """
    from napari_fedsam.app.benchmark.experiment import ExperimentConfig
    from napari_fedsam.app.benchmark.federated import run_benchmark

    run_benchmark(
        data,
        task,
        [name.strip() for name in methods.split(",")],
        out,
        rounds=rounds,
        seeds=[int(seed) for seed in seeds.split(",")],
        protocol=protocol,
        config=ExperimentConfig.read(config),
        train_images=train_images,
        split=split,
        clicks=clicks,
        device=device,
        tell=lambda line: console.print(line, markup=False, highlight=False),
    )
