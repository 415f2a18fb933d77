import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from typer.testing import CliRunner

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.app.cli import app, main
from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.readers import read_scan, read_segmentation
from napari_fedsam.sam.prompts import Prompts

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def run():
    runner = CliRunner()

    def invoke(*arguments):
        return runner.invoke(app, [str(argument) for argument in arguments])

    return invoke


def disc(shape=(64, 72), centre=(30, 40), radius=14):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


@pytest.fixture
def oblique_scan(tmp_path):
    """A bright disc in the middle slice of an oblique, anisotropic volume."""
    pixels = np.full((3, 64, 72), 40, np.int16)
    pixels[1][disc()] = 220
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((0.7, 0.7, 5.5))
    image.SetOrigin((-20.5, 13.25, 100.0))
    image.SetDirection(OBLIQUE)
    path = tmp_path / "oblique.nrrd"
    sitk.WriteImage(image, str(path))
    return path


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(
    "prompt", [("--box", "26,16,54,44"), ("--point", "40,30")], ids=["box", "point"]
)
def test_segment_writes_a_mask_with_the_scans_geometry(run, oblique_scan, tmp_path, prompt):
    output = tmp_path / "mask.nrrd"
    result = run("segment", oblique_scan, "--slice", 1, *prompt, "-o", output)
    assert result.exit_code == 0, result.output
    scan, mask = sitk.ReadImage(str(oblique_scan)), sitk.ReadImage(str(output))
    assert Geometry.from_image(mask).matches(Geometry.from_image(scan))
    pixels = sitk.GetArrayFromImage(mask)
    assert not pixels[[0, 2]].any()
    assert dice(pixels[1] > 0, disc()) > 0.9


@pytest.mark.data
@pytest.mark.parametrize(
    ("where", "index", "box"),
    [
        ("scans/spleen_ct/ct.nii.gz", 13, "96,60,140,110"),
        ("scans/brain1_mr/brain1_image.nrrd", 12, "80,80,170,180"),
        ("scans/totalseg_dicom/series", 10, "150,150,360,360"),
    ],
    ids=["spleen", "brain", "thorax"],
)
def test_segment_keeps_the_geometry_of_real_scans(run, data_folder, tmp_path, where, index, box):
    output = tmp_path / "mask.nii.gz"
    scan = read_scan(data_folder / where)
    result = run("segment", scan.source, "--slice", index, "--box", box, "-o", output)
    assert result.exit_code == 0, result.output
    mask = sitk.ReadImage(str(output))
    assert Geometry.from_image(mask).matches(scan.geometry)
    assert sitk.GetArrayFromImage(mask)[index].any()


def test_segment_writes_the_format_that_the_name_asks_for(run, oblique_scan, tmp_path):
    output = tmp_path / "mask.seg.nrrd"
    result = run("segment", oblique_scan, "--box", "26,16,54,44", "-o", output)
    assert result.exit_code == 0, result.output
    found = read_segmentation(output, read_scan(oblique_scan))
    assert [(each.value, each.name) for each in found.structures] == [(1, "structure 1")]
    assert found.labels.any()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mask.dcm", "was not read from DICOM files: save the mask as .seg.nrrd"),
        ("mask.png", "would hold one picture"),
        ("mask.txt", "has no mask format"),
        ("mask", "has no mask format"),
    ],
)
def test_segment_explains_formats_that_do_not_fit(run, oblique_scan, tmp_path, name, words):
    result = run("segment", oblique_scan, "--box", "26,16,54,44", "-o", tmp_path / name)
    assert isinstance(result.exception, FedSamError)
    assert words in str(result.exception)
    assert not (tmp_path / name).exists()


def test_segment_creates_the_masks_folder_and_refuses_a_folder_as_mask(run, oblique_scan, tmp_path):
    words = ("segment", oblique_scan, "--box", "26,16,54,44", "-o")
    result = run(*words, tmp_path / "new" / "mask.nrrd")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "folder.nrrd"
    folder.mkdir()
    refused = run(*words, folder, "--model", "never loaded")
    assert isinstance(refused.exception, FedSamError)
    assert "is a folder" in str(refused.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--box", "1,2,3"),
        ("--point", "a,b"),
        ("--no-prompt", "--point", "3,4"),
    ],
)
def test_segment_refuses_wrong_prompts_as_usage(run, oblique_scan, tmp_path, arguments):
    result = run("segment", oblique_scan, *arguments, "-o", tmp_path / "mask.nrrd")
    assert result.exit_code == 2
    assert not (tmp_path / "mask.nrrd").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--slice", "7", "--point", "3,4"), "no slice 7"),
        (("--point", "300,4"), "outside the 72 x 64 slice"),
        (("--point", "3,4", "--model", "vit_z"), "no model named 'vit_z'"),
    ],
)
def test_segment_explains_in_one_sentence(run, oblique_scan, tmp_path, arguments, words):
    result = run("segment", oblique_scan, *arguments, "-o", tmp_path / "mask.nrrd")
    assert isinstance(result.exception, FedSamError)
    assert words in str(result.exception)


def test_main_prints_the_sentence_and_exits_with_1(monkeypatch, capsys, tmp_path):
    missing = tmp_path / "missing.nii"
    monkeypatch.setattr(
        sys, "argv", ["napari-fedsam", "segment", str(missing), "--point", "1,1", "-o", "m.nii"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("napari-fedsam: ")
    assert "missing.nii" in error
    assert "Traceback" not in error


@pytest.fixture
def manifest(tmp_path):
    rows = ["task,site,split,image,mask,group"]
    for number, site in enumerate(("one", "two", "two")):
        mask = disc(centre=(30, 30 + 4 * number))
        Image.fromarray((60 + 150 * mask).astype(np.uint8)).save(tmp_path / f"i{number}.png")
        if number == 2:
            mask = np.zeros_like(mask)
        Image.fromarray((255 * mask).astype(np.uint8)).save(tmp_path / f"m{number}.png")
        rows.append(f"disc,{site},test,i{number}.png,m{number}.png,g{number}")
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_evaluate_reports_sites_and_leaves_empty_masks_out(run, manifest, tmp_path):
    out = tmp_path / "eval.json"
    result = run("evaluate", "--data", manifest, "--task", "disc", "--prompt", "box", "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["mean_dice"] > 0.9
    assert {site: r["n"] for site, r in report["sites"].items()} == {"one": 1, "two": 1}
    assert [image["image"] for image in report["images"]] == ["i0.png", "i1.png"]
    assert "empty" in report["empty_mask_rule"]


def test_evaluate_counts_false_positives_of_absent_structures(run, manifest, site, tmp_path):
    out = tmp_path / "eval.json"
    run(
        "evaluate", "--data", manifest, "--task", "disc", "--prompt", "none", "--out", out,
        "--model", site,
    )  # fmt: skip
    absent = json.loads(out.read_text())["images"][-1]
    assert absent["dice"] is None
    predictor = ModelSource(site).load().predictor
    picture = np.array(Image.open(manifest.parent / "i2.png"))
    marked = predictor.predict(predictor.encode(picture), Prompts(), structure=2).mask
    assert marked.any()
    assert absent["false_positives"] == marked.sum()


def test_evaluate_tells_the_structures_of_a_mask_apart(run, tmp_path):
    disc_alone = disc().astype(np.uint8)
    both = disc_alone.copy()
    both[28:34, 28:34] = 2
    rows = ["task,site,split,image,mask,group"]
    for name, mask in (("alone", disc_alone), ("both", both)):
        Image.fromarray(60 + 80 * mask).save(tmp_path / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / f"{name}-mask.png")
        rows.append(f"optic_disc_cup,one,test,{name}.png,{name}-mask.png,{name}")
    manifest, out = tmp_path / "manifest.csv", tmp_path / "eval.json"
    manifest.write_text("\n".join(rows) + "\n")
    command = (
        *("evaluate", "--data", manifest, "--task", "optic_disc_cup", "--prompt", "box"),
        *("--out", out, "--structure"),
    )
    counted = {}
    for structure in (1, 2):
        result = run(*command, str(structure))
        assert result.exit_code == 0, result.output
        counted[structure] = json.loads(out.read_text())["sites"]["one"]["n"]
    assert counted == {1: 2, 2: 1}
    refused = run(*command, "3")
    assert isinstance(refused.exception, FedSamError)
    assert "has no structure 3" in str(refused.exception)


def test_evaluate_names_the_tasks_there_are(run, manifest, tmp_path):
    result = run(
        "evaluate", "--data", manifest, "--task", "liver", "--prompt", "box",
        "--out", tmp_path / "e.json",
    )  # fmt: skip
    assert isinstance(result.exception, FedSamError)
    assert "disc" in str(result.exception)


@pytest.fixture
def kept_case(tmp_path):
    store = CaseStore(tmp_path / "cases")
    record = store.accept(
        NewCase(
            image=np.zeros((8, 9), np.uint8),
            mask=np.ones((8, 9), np.bool_),
            structure=Structure(value=1, name="disc", color="#ff0000"),
            window=(0, 255),
            scan_key="a scan",
        )
    )
    return store, record


def test_cases_are_listed_verified_exported_and_deleted(run, kept_case, tmp_path):
    store, record = kept_case
    folder = ("--folder", store.folder)
    assert record.id[:8] in run("cases", "list", *folder).output
    assert "1 cases are sound, 0 were set aside" in run("cases", "verify", *folder).output
    assert run("cases", "export", tmp_path / "export", *folder).exit_code == 0
    assert (tmp_path / "export" / "manifest.csv").is_file()
    assert "trained before" in run("cases", "delete", record.id, "--yes", *folder).output
    assert store.records() == []


def test_a_broken_case_makes_verify_fail(run, kept_case):
    store, record = kept_case
    (store.case_folder(record.id) / "mask.nrrd").write_bytes(b"broken")
    result = run("cases", "verify", "--folder", store.folder)
    assert result.exit_code == 1
    assert record.id in result.output


def test_version_needs_no_model():
    command = [sys.executable, "-m", "napari_fedsam.app", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("napari-fedsam ")
