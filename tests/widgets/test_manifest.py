"""The npe2 manifest: everything it names exists."""

import pytest
from npe2 import PluginManifest

import napari_fedsam
from napari_fedsam.imaging.mask_formats import MASK_FORMATS


@pytest.fixture
def manifest() -> PluginManifest:
    from pathlib import Path

    return PluginManifest.from_file(Path(napari_fedsam.__file__).parent / "napari.yaml")


def test_every_command_can_be_imported(manifest):
    manifest.validate_imports()


def test_what_is_contributed(manifest):
    contributions = manifest.contributions
    assert [widget.display_name for widget in contributions.widgets] == [
        "Annotate with a federated model"
    ]
    assert {sample.key for sample in contributions.sample_data} == {
        "icbm152_t1",
        "icbm152_t1_tissues",
    }
    (reader,) = contributions.readers
    assert reader.accepts_directories
    assert {"*.nii.gz", "*.nrrd", "*.mha", "*.dcm", "*.png"} <= set(reader.filename_patterns)
    (writer,) = contributions.writers
    assert set(writer.filename_extensions) == {s for f in MASK_FORMATS for s in f.suffixes}
