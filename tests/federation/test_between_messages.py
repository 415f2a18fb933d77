import pytest
import torch

from napari_fedsam.federation.between_messages import keep_tensors, kept_tensors

TENSORS = {"neck.weight": torch.arange(6.0).reshape(2, 3), "gate": torch.zeros(0)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pending.safetensors"
    keep_tensors(path, TENSORS, 4, "abc")
    return path


def test_what_is_kept_comes_back_with_its_round(path):
    number, tensors = kept_tensors(path, "abc")
    assert number == 4
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_what_belongs_to_another_recipe_is_left(path):
    assert kept_tensors(path, "abd") is None


def test_nothing_kept_is_nothing(tmp_path):
    assert kept_tensors(tmp_path / "none.safetensors", "abc") is None


@pytest.mark.parametrize("length", [0, 7, 40, -1])
def test_a_damaged_file_is_as_good_as_none(path, length):
    path.write_bytes(path.read_bytes()[:length])
    assert kept_tensors(path, "abc") is None
