import numpy as np
import pytest
from PIL import Image

from napari_fedsam.app.demo_sites import manifest_plan, sample_plan
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.training.errors import ManifestError


def test_simulated_sites_learn_far_from_what_they_are_measured_on(tmp_path):
    plan = sample_plan(tmp_path, quick=True)
    assert len(plan.sites) == 3
    assert all("simulated" in site.name for site in plan.sites)
    assert "simulated" in plan.note
    measured = {int(s.id.rsplit(" ", 1)[1]) for site in plan.sites for s in site.held_out}
    for site in plan.sites:
        records = CaseStore(site.folder / "cases").records()
        assert {record.split for record in records} == {"train", "val"}
        for record in records:
            # 2 mm slices: 10 mm between the faces of two slices are 6 steps.
            assert min(abs(record.slice_index - index) for index in measured) >= 6


def test_window_tasks_are_not_kept_beforehand(tmp_path):
    plan = sample_plan(tmp_path, quick=True)
    kept = {r.slice_index for r in CaseStore(plan.sites[0].folder / "cases").records()}
    assert plan.tasks
    assert all(task.slice_index not in kept and task.scan.is_file() for task in plan.tasks)


def write_manifest(folder, sites):
    rows = ["task,site,split,image,mask,group"]
    for site in sites:
        for number in range(6):
            image, mask = f"{site}-{number}.png", f"{site}-{number}-mask.png"
            Image.fromarray(np.full((20, 24), 10 * number, np.uint8)).save(folder / image)
            values = np.zeros((20, 24), np.uint8)
            values[5:12, 6:14] = 255
            Image.fromarray(values).save(folder / mask)
            split = "test" if number > 3 else "train"
            rows.append(f"blob,{site},{split},{image},{mask},{site}-{number // 2}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_every_site_of_a_manifest_becomes_a_hospital(tmp_path):
    data = write_manifest(tmp_path, ("north", "south"))
    plan = manifest_plan(tmp_path / "work", data, "blob", quick=True)
    assert [site.name for site in plan.sites] == ["north", "south"]
    assert "subset" in plan.note
    for site in plan.sites:
        records = CaseStore(site.folder / "cases").records()
        groups = {
            split: {r.patient for r in records if r.split == split} for split in ("train", "val")
        }
        assert groups["val"]
        assert not groups["train"] & groups["val"]
        assert all("-4" in s.id or "-5" in s.id for s in site.held_out)


def test_one_site_is_no_federation(tmp_path):
    data = write_manifest(tmp_path, ("north",))
    with pytest.raises(ManifestError, match="two or more"):
        manifest_plan(tmp_path / "work", data, "blob", quick=True)
