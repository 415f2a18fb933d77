import numpy as np
import pytest
from pydantic import ValidationError

from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.errors import InvalidCaseError

GREY = np.zeros((12, 16), np.int16)
MASK = np.zeros((12, 16), np.bool_)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image": [[1, 2], [3, 4]]}, "not an array"),
        ({"image": np.zeros((3, 12, 16), np.int16)}, r"shape \(3, 12, 16\)"),
        ({"image": np.zeros(12, np.int16)}, r"shape \(12,\)"),
        ({"image": np.zeros((0, 16), np.int16)}, r"shape \(0, 16\)"),
        ({"image": np.zeros((12, 16, 4), np.uint8)}, r"shape \(12, 16, 4\)"),
        ({"image": np.zeros((12, 16, 3), np.float32)}, "convert it to uint8"),
        ({"image": np.zeros((12, 16), np.complex64)}, "pixel type complex64"),
        ({"image": np.zeros((12, 16), np.float16)}, "pixel type float16"),
        ({"image": np.full((12, 16), np.nan, np.float32)}, "not finite"),
        ({"image": np.full((12, 16), np.inf)}, "not finite"),
        ({"image": MASK}, "pixel type bool"),
        ({"mask": MASK.astype(np.uint8)}, "not a bool array"),
        ({"mask": MASK.tolist()}, "not a bool array"),
        ({"mask": MASK[:-1]}, r"shape \(11, 16\) but its image has \(12, 16\)"),
        ({"mask": MASK.T}, r"shape \(16, 12\)"),
        ({"mask": MASK[None]}, r"shape \(1, 12, 16\)"),
        ({"structure": None}, "no structure"),
        ({"structure": 1}, "no structure"),
        ({"window": (240.0, -160.0)}, "the lower one first"),
        ({"window": (1.0, 1.0)}, "the lower one first"),
        ({"window": (0.0, float("inf"))}, "two finite numbers"),
        ({"window": (-1e308, 1e308)}, "two finite numbers"),
        ({"window": None}, "two finite numbers"),
        ({"spacing": (0.0, 1.0)}, "two positive numbers"),
        ({"spacing": (1.0, -1.0)}, "two positive numbers"),
        ({"spacing": (1.0, 1.0, 1.0)}, "two positive numbers"),
        ({"spacing": (float("nan"), 1.0)}, "two positive numbers"),
        ({"prompts": {"kind": "none"}}, "list of JSON objects"),
        ({"prompts": "none"}, "list of JSON objects"),
        ({"prompts": [{"xy": [1, 2]}]}, 'JSON object with a "kind"'),
        ({"prompts": [{"kind": "point", "xy": [1.0], "positive": True}]}, "two finite numbers"),
        ({"prompts": [{"kind": "point", "xy": [1, 2], "positive": 1}]}, "true or false"),
        ({"prompts": [{"kind": "point", "xy": [1, True], "positive": True}]}, "two finite numbers"),
        ({"prompts": [{"kind": "box", "xyxy": [1, 2, 3]}]}, "four finite numbers"),
        ({"prompts": [{"kind": "box", "xyxy": [1, 2, 3, float("nan")]}]}, "plain numbers"),
        ({"prompts": [{"kind": "lasso", "path": object()}]}, "plain numbers"),
        ({"prompts": [{"kind": "lasso", "note": "\ud800"}]}, "plain numbers"),
        ({"scan_key": " "}, "which scan"),
        ({"scan_key": None}, "which scan"),
        ({"patient_key": 4711}, "must be text"),
        ({"modality": "X" * 17}, "modality must be one line"),
        ({"plane": "ax\nial"}, "plane must be one line"),
        ({"annotator": None}, "annotator must be one line"),
        ({"model": "a\x00b"}, "model must be one line"),
        ({"slice_index": -1}, "slice index"),
        ({"slice_index": 1.5}, "slice index"),
        ({"slice_index": True}, "slice index"),
        ({"split": "test"}, '"train", "val" or None'),
        ({"seconds": -1.0}, "annotation time"),
        ({"seconds": float("nan")}, "annotation time"),
        ({"clicks": -1}, "click count"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make_case, changes, sentence) -> None:
    with pytest.raises(InvalidCaseError, match=sentence) as caught:
        make_case(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert "4711" not in message


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 81},
        {"name": "two\nlines"},
        {"value": 0},
        {"value": 256},
        {"color": "red"},
        {"color": "#12345"},
        {"unknown": 1},
    ],
)
def test_bad_structures_are_refused(changes) -> None:
    with pytest.raises(ValidationError):
        Structure.model_validate({"value": 1, "name": "spleen", "color": "#00ff00"} | changes)


def test_a_structure_has_one_spelling() -> None:
    structure = Structure(value=1, name=" spleen ", color="#00FF00")
    assert (structure.name, structure.color) == ("spleen", "#00ff00")
    assert hash(structure) == hash(Structure(value=1, name="spleen", color="#00ff00"))


def test_drawing_on_does_not_change_the_case(make_case) -> None:
    image, mask = GREY.copy(), MASK.copy()
    case = make_case(image=image, mask=mask)
    image[:] = 9
    mask[:] = True
    assert not case.image.any()
    assert not case.mask.any()
    with pytest.raises(ValueError, match="read-only"):
        case.mask[0, 0] = True


def test_numpy_numbers_in_prompts_become_json(make_case) -> None:
    prompt = {"kind": "point", "xy": np.array([1.5, 2], np.float32), "positive": np.bool_(True)}
    case = make_case(prompts=[prompt], slice_index=np.int64(3), clicks=np.int32(2))
    assert case.prompts == ({"kind": "point", "xy": [1.5, 2.0], "positive": True},)
    assert type(case.slice_index) is int
    assert type(case.clicks) is int


def test_views_and_foreign_byte_order_are_taken(make_case) -> None:
    image = np.arange(24 * 32).reshape(24, 32).astype(">i2")[::-2, ::2]
    case = make_case(image=image)
    assert case.image.dtype == np.dtype(np.int16)
    assert case.image.flags.c_contiguous
    np.testing.assert_array_equal(case.image, image)


@pytest.mark.parametrize("unknown", [None, "", "  "])
def test_a_blank_patient_is_unknown(make_case, unknown) -> None:
    assert make_case(patient_key=unknown).patient_key is None


def test_identifiers_are_not_shown(make_case) -> None:
    case: NewCase = make_case(scan_key="accession 99")
    assert "4711" not in repr(case)
    assert "accession 99" not in repr(case)
