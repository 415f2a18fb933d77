from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore

SPLEEN = Structure(
    value=1, name="spleen", color="#ff8000", definition="without vessels at the hilum"
)


def build_case(**changes: Any) -> NewCase:
    """A small CT case in which any part can be changed."""
    random = np.random.default_rng(7)
    mask = np.zeros((12, 16), dtype=np.bool_)
    mask[3:9, 4:12] = True
    parts: dict[str, Any] = {
        "image": random.integers(-1000, 1000, (12, 16)).astype(np.int16),
        "mask": mask,
        "structure": SPLEEN,
        "window": (-160.0, 240.0),
        "spacing": (5.0, 0.8),
        "prompts": [
            {"kind": "point", "xy": [4.0, 5.5], "positive": True},
            {"kind": "box", "xyxy": [1, 2, 9, 10]},
        ],
        "scan_key": "scan one",
        "patient_key": "Doe^Jane 4711",
        "modality": "CT",
        "plane": "axial",
        "slice_index": 12,
        "annotator": "reader A",
        "model": "base, round 0",
    }
    return NewCase(**(parts | changes))


@pytest.fixture
def make_case() -> Callable[..., NewCase]:
    return build_case


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    return CaseStore(tmp_path / "cases")
