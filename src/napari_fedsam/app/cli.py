"""The `napari-fedsam` command."""

import errno
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_fedsam import __version__
from napari_fedsam.app.benchmark_cli import benchmark_app
from napari_fedsam.app.cases_cli import cases_app
from napari_fedsam.app.console import STRUCTURE_HELP, console, fail, progress_bar
from napari_fedsam.app.federation_cli import coordinator_app, site_app
from napari_fedsam.app.output_files import ready_file
from napari_fedsam.errors import FedSamError
from napari_fedsam.files import write_text_atomically

if TYPE_CHECKING:
    from napari_fedsam.annotation.model_source import ModelSource

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Interactive segmentation with a personalised, federated Segment Anything Model. "
    "Research use only.",
)
app.add_typer(cases_app, name="cases")
app.add_typer(coordinator_app, name="coordinator")
app.add_typer(site_app, name="site")
app.add_typer(benchmark_app, name="benchmark")

ModelProfile = Annotated[
    str | None,
    typer.Option("--profile", help="Of which federation 'site' is; the one in use by default."),
]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MODEL_HELP = "A model's name, a checkpoint's path, or 'site' for this site's personalised model."


def main() -> None:
    """Run the command; a failure meant for people is one sentence and exit status 1."""
    # An ordinary end, so that background processes are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except FedSamError as error:
        fail(str(error))
        sys.exit(1)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        fail(
            f"There is no room for what is to be written{where}: free some space, or raise the "
            "limit for files, and run the command again."
        )
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"napari-fedsam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del version


def _model_source(profile: str | None) -> "ModelSource":
    """Return the models of this machine's site, in the federation of this name."""
    from napari_fedsam.annotation.model_source import ModelSource
    from napari_fedsam.federation.profiles import Profiles
    from napari_fedsam.settings import home

    key = None if profile is None else Profiles(home()).named(profile).key
    return ModelSource(home(), key)


def _numbers(text: str, count: int, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        wanted = ",".join(("x0", "y0", "x1", "y1") if count == 4 else ("x", "y"))
        raise typer.BadParameter(f"'{text}' is not {wanted} in pixels", param_hint=option)
    return values


def _point(text: str) -> tuple[float, float, bool]:
    positive = not text.endswith(",-")
    x, y = _numbers(text.removesuffix(",-").removesuffix(",+"), 2, "--point")
    return x, y, positive


@app.command()
def segment(
    scan: Annotated[Path, typer.Argument(help="A scan file, a picture, or a DICOM folder.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The mask to write; its ending chooses the format: .nii.gz, .nrrd, .mha, "
            ".seg.nrrd (3D Slicer), .dcm (DICOM SEG), .png or .json (COCO).",
        ),
    ],
    slice_index: Annotated[
        int | None, typer.Option("--slice", help="The slice; the middle one by default.")
    ] = None,
    axis: Annotated[
        int | None,
        typer.Option(help="Axis of the stored array: 0 z, 1 y, 2 x; the acquired one by default."),
    ] = None,
    box: Annotated[str | None, typer.Option(help="x0,y0,x1,y1 in pixels of that slice.")] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(help="x,y of a positive click, x,y,- of a negative one; repeatable."),
    ] = None,
    no_prompt: Annotated[bool, typer.Option("--no-prompt", help="Ask for a proposal.")] = False,
    structure: Annotated[str | None, typer.Option(help=STRUCTURE_HELP)] = None,
    model: Annotated[str, typer.Option(help=_MODEL_HELP)] = "lite_medsam",
    profile: ModelProfile = None,
    series: Annotated[
        str | None, typer.Option(help="UID of the DICOM series, where a folder holds several.")
    ] = None,
) -> None:
    """Segment one slice of a scan; the mask has the scan's exact geometry."""
    from napari_fedsam.app.segmentation import segment_slice
    from napari_fedsam.app.structure_choice import chosen_structure, structures_of
    from napari_fedsam.imaging.mask_formats import format_to_write
    from napari_fedsam.imaging.readers import read_scan
    from napari_fedsam.imaging.writers import write_mask

    if no_prompt == bool(box or point):
        raise typer.BadParameter("give --box, --point or --no-prompt")
    corners = None if box is None else _numbers(box, 4, "--box")
    points = [_point(text) for text in point or []]
    opened = read_scan(scan, series=series)
    # Before the model is at work for nothing.
    format_to_write(output, opened)
    ready_file(output)
    source = _model_source(profile)
    predictor = source.load(model).predictor
    chosen = chosen_structure(predictor, structure)
    mask = segment_slice(
        opened,
        predictor,
        axis=axis,
        index=slice_index,
        points=points,
        box=None if corners is None else (corners[0], corners[1], corners[2], corners[3]),
        structure=chosen.value,
    )
    known = structures_of(predictor) or (source.structures() if model == "site" else ())
    write_mask(mask, opened, output, [each for each in known if each.value == chosen.value])
    console.print(f"{output}: {int((mask > 0).sum())} pixels", markup=False)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="A manifest (task, site, split, image, mask).")],
    task: Annotated[str, typer.Option(help="The manifest's task.")],
    prompt: Annotated[
        Literal["none", "box", "point"],
        typer.Option(help="box: the true bounding box; point: the pixel deepest inside."),
    ],
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    site: Annotated[str | None, typer.Option(help="One site only.")] = None,
    split: Annotated[str, typer.Option(help="The manifest's split.")] = "test",
    structure: Annotated[str | None, typer.Option(help=STRUCTURE_HELP)] = None,
    model: Annotated[str, typer.Option(help=_MODEL_HELP)] = "lite_medsam",
    profile: ModelProfile = None,
) -> None:
    """Measure a model's Dice on a manifest's images."""
    from napari_fedsam.app.evaluation_report import evaluate_rows, labels_in
    from napari_fedsam.app.structure_choice import chosen_structure
    from napari_fedsam.training.manifest import read_manifest

    ready_file(out)
    rows = read_manifest(data, task, site=site, split=split)
    predictor = _model_source(profile).load(model).predictor
    chosen = chosen_structure(predictor, structure)
    labels = labels_in(task, chosen)
    with progress_bar(f"{len(rows)} images") as progress:
        report = evaluate_rows(
            predictor, rows, prompt, structure=chosen.value, labels=labels, progress=progress
        )
    write_text_atomically(out, json.dumps({"model": model, "task": task, **report}, indent=2))
    for name, result in report["sites"].items():
        dice = "-" if result["mean_dice"] is None else f"{result['mean_dice']:.3f}"
        console.print(f"{name:24} n = {result['n']:4}  mean Dice {dice}", markup=False)


@app.command()
def methods(
    model: Annotated[str, typer.Option(help="A base model's name.")] = "lite_medsam",
    decoder: Annotated[
        Literal["frozen", "lora", "shared", "local"] | None,
        typer.Option(help="Who owns the decoder, for the methods that leave it open."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the methods with their frozen, shared and local parameters on a base model."""
    from rich.table import Table

    from napari_fedsam.personalization.method_options import MethodOptions
    from napari_fedsam.personalization.method_summary import summarise_methods
    from napari_fedsam.personalization.methods import METHODS

    if decoder is None:
        summaries = summarise_methods(model)
    else:
        open_to_it = [m.name for m in METHODS.values() if m.leaves_decoder_open_to(decoder)]
        summaries = summarise_methods(model, open_to_it, MethodOptions(decoder=decoder))
    if as_json:
        console.print_json(data=[summary.model_dump() for summary in summaries])
        return
    table = Table(box=None)
    table.add_column("method", no_wrap=True)
    for heading in ("frozen", "shared", "local", "MB a round"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it is, and its source")
    for summary in summaries:
        counts = (summary.frozen, summary.shared, summary.local)
        table.add_row(
            summary.name,
            *(f"{count:,}" for count in counts),
            f"{summary.bytes_per_round / 1e6:.2f}",
            f"{summary.title} ({summary.source})",
        )
    console.print(table)


@app.command()
def demo(
    headless: Annotated[
        bool, typer.Option("--headless", help="Run the story unattended, without a display.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("demo-out"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A short run that only shows that everything works.")
    ] = False,
    scan: Annotated[Path | None, typer.Option(help="Open your own scan instead.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A manifest: each of its sites becomes a hospital.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The manifest's task.")] = None,
) -> None:
    """Show the whole loop: prompt, keep, federate, prompt again."""
    from napari_fedsam.app.demo import run_demo

    if (data is None) != (task is None):
        raise typer.BadParameter("--data and --task go together")
    if scan is not None and headless:
        raise typer.BadParameter("--scan opens a window: leave --headless out")
    run_demo(headless=headless, out=out, quick=quick, scan=scan, data=data, task=task)
