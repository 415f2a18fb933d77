"""The comparison of our trainer with a plain loop, in small."""

import json

from typer.testing import CliRunner

from napari_fedsam.app.cli import app

SMALL = ("--images", "4", "--plain-steps", "2", "--compared-steps", "2")


def test_both_sides_are_measured_and_take_the_same_steps(tmp_path) -> None:
    figures = tmp_path / "training.json"
    result = CliRunner().invoke(app, ["benchmark", "training", *SMALL, "--json", str(figures)])
    assert result.exit_code == 0, result.output
    assert "Speed-up" in result.output
    written = json.loads(figures.read_text())
    ratio = written["images_per_second"] / written["plain_images_per_second"]
    assert written["speedup"] == ratio
    assert min(written["peak_mib"], written["plain_peak_mib"]) > 100
    # From the same parameters, of one image in bfloat16; AdamW's first step then makes much of
    # small differences.
    first, second = written["loss_differences"]
    assert first < 0.1
    assert second < 0.5
