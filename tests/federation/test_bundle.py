import hashlib
import io
import tomllib
import zipfile
from importlib.resources import files

from flwr.cli.install import install_from_fab
from flwr.common.config import get_fab_config

from napari_fedsam.federation.bundle import build_bundle, bundle_hash


def test_the_bundle_is_reproducible():
    assert build_bundle() == build_bundle()
    assert bundle_hash() == hashlib.sha256(build_bundle()).hexdigest()


def test_nothing_in_the_bundle_depends_on_the_system_or_the_time():
    with zipfile.ZipFile(io.BytesIO(build_bundle())) as archive:
        entries = archive.infolist()
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert len({entry.date_time for entry in entries}) == 1
    assert {entry.create_system for entry in entries} == {3}


def test_the_bundle_is_only_a_shell_around_the_installed_package():
    with zipfile.ZipFile(io.BytesIO(build_bundle())) as archive:
        names = set(archive.namelist())
        code = archive.read("fedsam_app.py").decode()
        assert b"\r" not in archive.read("fedsam_app.py")
    assert names == {"pyproject.toml", "fedsam_app.py", ".info/CONTENT"}
    statements = [line for line in code.splitlines() if line and not line.startswith(('"""', "__"))]
    assert all(line.startswith("from napari_fedsam.federation.") for line in statements)


def test_flower_accepts_and_installs_the_bundle(tmp_path, capsys):
    config = get_fab_config(build_bundle())
    assert config["project"]["name"] == "napari-fedsam-app"
    folder = install_from_fab(build_bundle(), install_dir=tmp_path, skip_prompt=True)
    template = files("napari_fedsam.resources") / "flower_app"
    installed = tomllib.loads((folder / "pyproject.toml").read_text())
    assert installed == tomllib.loads((template / "pyproject.toml").read_text())
    assert bundle_hash()[:8] in folder.name
