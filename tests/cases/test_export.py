import csv
import hashlib
import json

import numpy as np
import pytest
import SimpleITK as sitk

from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.cases.export import COLUMNS


def rows_of(destination):
    with (destination / "manifest.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_manifest_describes_every_case(store, make_case, tmp_path) -> None:
    new = make_case()
    grey = store.accept(new)
    colour = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    absent = np.zeros((4, 6), np.bool_)
    picture = store.accept(
        make_case(image=colour, mask=absent, spacing=None, scan_key="2", patient_key=None)
    )
    destination = tmp_path / "new" / "export"
    assert store.export(destination, site="north") == 2
    first, second = rows_of(destination)
    assert tuple(first) == COLUMNS
    assert first["site"] == "north"
    assert (first["task"], first["structure_value"], first["absent"]) == ("spleen", "1", "0")
    assert (first["width"], first["height"]) == ("16", "12")
    assert (first["split"], first["group"]) == (grey.split, grey.patient)
    assert (first["spacing_row"], first["spacing_column"]) == ("5.0", "0.8")
    assert (second["absent"], second["spacing_row"]) == ("1", "")
    image = sitk.ReadImage(str(destination / first["image"]))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), new.image)
    mask = sitk.ReadImage(str(destination / first["mask"]))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), new.mask)
    for row in (first, second):
        for column in ("image", "mask"):
            content = (destination / row[column]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row[f"sha256_{column}"]
    record = json.loads((destination / "records" / f"{picture.id}.json").read_text())
    assert record["structure"]["definition"] == "without vessels at the hilum"
    assert "research use only" in (destination / "README.txt").read_text()


def test_broken_cases_are_left_out(store, make_case, tmp_path) -> None:
    broken, healthy = store.accept(make_case()), store.accept(make_case())
    (store.case_folder(broken.id) / "image.nrrd").write_bytes(b"")
    assert store.export(tmp_path / "export") == 1
    assert [row["image"] for row in rows_of(tmp_path / "export")] == [f"images/{healthy.id}.nrrd"]
    assert [case.id for case in store.set_aside()] == [broken.id]


def test_an_empty_store_gives_an_empty_manifest_in_an_empty_folder(store, tmp_path) -> None:
    (tmp_path / "export").mkdir()
    assert store.export(tmp_path / "export") == 0
    assert rows_of(tmp_path / "export") == []


def test_a_folder_in_use_is_refused(store, make_case, tmp_path) -> None:
    store.accept(make_case())
    destination = tmp_path / "export"
    destination.mkdir()
    (destination / "mine.txt").write_text("mine")
    with pytest.raises(CaseStoreError, match="is not empty"):
        store.export(destination)
    assert [path.name for path in destination.iterdir()] == ["mine.txt"]
    with pytest.raises(CaseStoreError, match="is a file"):
        store.export(destination / "mine.txt")


def test_the_store_is_not_exported_into_itself(store, make_case) -> None:
    store.accept(make_case())
    for destination in (store.folder, store.folder / "export", store.folder / ".." / "cases"):
        with pytest.raises(CaseStoreError, match="inside the cases folder"):
            store.export(destination)
    assert len(store.records()) == 1


def test_a_failed_export_leaves_nothing(store, make_case, tmp_path) -> None:
    store.accept(make_case())
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CaseStoreError, match="were not exported"):
        store.export(tmp_path / "file" / "export")
    assert sorted(tmp_path.iterdir()) == before
