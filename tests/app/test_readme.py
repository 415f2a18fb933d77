"""The README's Python example runs as it stands."""

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

README = Path(__file__).parents[2] / "README.md"


def test_the_python_example_writes_a_mask(tmp_path, monkeypatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    volume = np.full((20, 160, 150), 20, np.int16)
    volume[12, 60:95, 50:120] = 200
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.9, 0.9, 3.0))
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(README), "exec"), {})  # noqa: S102 - it is our own text
    mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(mask.GetSpacing(), image.GetSpacing(), rtol=1e-6)
    found = sitk.GetArrayFromImage(mask)
    assert found[12].any()
    assert not np.delete(found, 12, axis=0).any()
