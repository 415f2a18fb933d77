"""Several federations on one machine, as a person types them."""

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from napari_fedsam.app.cli import app
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.audit import AuditLine, append_audit
from napari_fedsam.federation.profiles import Profiles
from napari_fedsam.federation.site import Site
from napari_fedsam.imaging.readers import read_scan, read_segmentation
from napari_fedsam.settings import HOME_VARIABLE


@pytest.fixture
def imported(type_in, tmp_path, folder):
    """Two federations' invitations, imported one after the other; what was printed."""
    told = []
    for name in ("Spleen", "Liver"):
        recipe, coordinator = tmp_path / f"{name}.json", tmp_path / f"coordinator of {name}"
        type_in("coordinator", "recipe", recipe, "--name", name, "--structure", name.lower())
        type_in("coordinator", "init", coordinator, "--recipe", recipe)
        type_in("coordinator", "invite", coordinator, "A")
        path = coordinator / "invitations" / "A.json"
        told.append(type_in("site", "import", path, "--folder", folder, answer="y\n"))
    return told


def test_without_a_federation_there_is_none_to_list(type_in, folder):
    assert "No federation yet" in type_in("site", "profiles", "--folder", folder)


def test_a_second_invitation_makes_a_second_federation(imported, type_in, folder):
    assert "in use now" not in imported[0]
    assert "'Liver' is the federation in use now; the others stay" in imported[1]
    shown = type_in("site", "profiles", "--folder", folder)
    assert shown.startswith("Spleen: offline, at 127.0.0.1:9092, rounds joined 0 * Liver: offline")


def test_the_one_in_use_is_chosen_and_one_is_named(imported, type_in, folder):
    assert type_in("site", "status", "--folder", folder).startswith("Liver: offline")
    assert "'Spleen' is the federation in use now" in type_in(
        "site", "profile", "use", "spleen", "--folder", folder
    )
    assert "* Spleen: offline" in type_in("site", "profiles", "--folder", folder)
    assert type_in("site", "status", "--folder", folder).startswith("Spleen: offline")
    named = type_in("site", "status", "--folder", folder, "--profile", "Liver")
    assert named.startswith("Liver: offline")
    with pytest.raises(FedSamError, match="no federation 'Kidney'; there is 'Spleen', 'Liver'"):
        type_in("site", "profile", "use", "Kidney", "--folder", folder)


def test_each_has_its_own_key_and_settings(imported, type_in, folder):
    keys = {
        type_in("site", "key", "--folder", folder, "--profile", name)
        for name in ("Spleen", "Liver")
    }
    assert len(keys) == 2
    type_in("site", "settings", "--folder", folder, "--profile", "Spleen", "--pause")
    assert "paused: False" in type_in("site", "settings", "--folder", folder)
    assert "paused: True" in type_in("site", "settings", "--folder", folder, "--profile", "Spleen")


def test_what_takes_part_is_said_and_left(imported, type_in, folder):
    site = Site(folder, "")
    site.join()
    try:
        assert "Spleen: connecting" in type_in("site", "profiles", "--folder", folder)
        assert "'Spleen' takes part on this machine" in type_in(
            "site", "status", "--folder", folder
        )
        shown = type_in("site", "profile", "use", "Liver", "--folder", folder)
        assert "'Spleen' still takes part; 'Liver' can join once it has left." in shown
        with pytest.raises(FedSamError, match="'Spleen' takes part on this machine now"):
            type_in("site", "join", "--folder", folder)
        with pytest.raises(FedSamError, match="leave it before you remove it"):
            type_in("site", "profile", "remove", "Spleen", "--yes", "--folder", folder)
        type_in("site", "leave", "--folder", folder)
        assert Profiles(folder).taking_part() is None
    finally:
        site.leave()


def test_removing_says_what_goes_and_what_stays_and_asks(imported, type_in, folder):
    line = AuditLine(time="t", round=1, purpose="train", error="x", bytes=9, sha256="f" * 64)
    files = Profiles(folder).named("Liver").files
    append_audit(files.audit, line)
    words = ["site", "profile", "remove", "Liver", "--folder", str(folder)]
    assert CliRunner().invoke(app, words, input="n\n").exit_code != 0
    assert files.invitation.exists()
    shown = type_in(*words, answer="y\n")
    assert "What stays: every case" in shown
    assert "The record of what was sent: " in shown
    assert [profile.name for profile in Profiles(folder).all()] == ["Spleen"]
    assert type_in("site", "status", "--folder", folder).startswith("Spleen: offline")


def test_a_federation_is_named_to_segment_with_its_model(
    imported, type_in, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv(HOME_VARIABLE, str(folder))
    pixels = np.full((1, 48, 64), 40, np.uint8)
    pixels[:, 16:36, 20:44] = 200
    picture, mask = tmp_path / "scan.nrrd", tmp_path / "mask.seg.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(picture))
    for options, name in (((), "liver"), (("--profile", "Spleen"), "spleen")):
        box = ("--box", "19,15,45,37", "--model", "site")
        type_in("segment", picture, *box, *options, "-o", mask)
        found = read_segmentation(mask, read_scan(picture))
        assert [each.name for each in found.structures] == [name]
    with pytest.raises(FedSamError, match="no federation 'Kidney'"):
        type_in("segment", picture, *box, "--profile", "Kidney", "-o", mask)
