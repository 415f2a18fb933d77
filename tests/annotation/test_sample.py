"""The sample as the program reads it."""

import numpy as np
import pytest

from napari_fedsam.annotation.sample import SAMPLE_STRUCTURES, Sample, load_sample
from napari_fedsam.app.slice_split import split_slices


@pytest.fixture(scope="module")
def sample() -> Sample:
    return load_sample()


def test_the_scan_is_a_named_mr_with_its_geometry(sample):
    assert sample.scan.name == "ICBM 152 T1 (sample)"
    assert sample.scan.modality == "MR"
    assert sample.scan.spacing == (2.0, 2.0, 2.0)
    assert sample.scan.spacing_known
    assert sample.scan.slice_axis == 0
    assert sample.scan.patient_key is None


def test_every_structure_lies_inside_the_brain(sample):
    assert sample.labels.shape == sample.scan.shape
    for structure in SAMPLE_STRUCTURES:
        mask = sample.mask(structure)
        assert mask.dtype == bool
        assert 10_000 < np.count_nonzero(mask) < np.count_nonzero(sample.brain)
        assert not (mask & ~sample.brain).any()


def test_structures_have_their_own_values_names_and_colours():
    for of in ("value", "name", "color"):
        assert len({getattr(structure, of) for structure in SAMPLE_STRUCTURES}) == 2
    assert all(structure.definition for structure in SAMPLE_STRUCTURES)


def test_the_lowest_brain_tissue_is_shown_at_the_back(sample):
    """Display axes run from head to foot and from front to back: the brain ends in its stem."""
    brain = sample.scan.orientation.to_display(sample.brain)
    lowest = np.flatnonzero(brain.any(axis=(1, 2)))[-1]
    rows, _ = np.nonzero(brain[lowest])
    assert rows.mean() > brain.shape[1] / 2


def test_three_sites_get_enough_slices(sample):
    white = sample.mask(SAMPLE_STRUCTURES[1])
    split = split_slices(white.any(axis=(1, 2)), sample.scan.spacing[0], sites=3)
    assert all(len(slices) >= 10 for slices in split.train)
    assert len(split.held_out) >= 10
