"""The package as it is installed: from the source tree and from a wheel."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest
from setuptools import find_packages

REPOSITORY = Path(__file__).parents[2]
RESOURCES = REPOSITORY / "resources"
PACKAGE = REPOSITORY / "src" / "napari_fedsam"


def resource_files() -> set[str]:
    return {
        path.relative_to(RESOURCES).as_posix()
        for path in RESOURCES.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Build a wheel from a copy of the tree, with caches of Python that must not get into it."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("src", "resources"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, copy)
    for folder in (copy / "resources", copy / "resources" / "samples"):
        (folder / "__pycache__").mkdir(exist_ok=True)
        (folder / "__pycache__" / "left.cpython-311.pyc").touch()
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


def test_the_wheel_has_every_resource(wheel):
    prefix = "napari_fedsam/resources/"
    packed = {name for name in wheel.namelist() if name.startswith(prefix)}
    assert packed == {prefix + name for name in resource_files()}
    for name in resource_files():
        assert wheel.read(prefix + name) == (RESOURCES / name).read_bytes()


def test_the_wheel_has_every_module_the_manifest_and_the_type_marker(wheel):
    expected = {
        f"napari_fedsam/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.suffix == ".py" or path.name in ("napari.yaml", "py.typed")
    }
    prefixes = ("napari_fedsam/resources/", f"napari_fedsam-{version('napari-fedsam')}.dist-info/")
    assert {name for name in wheel.namelist() if not name.startswith(prefixes)} == expected


def test_the_wheel_carries_the_licences(wheel):
    licences = {name.split("/licenses/")[1] for name in wheel.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "resources/samples/ICBM152-LICENSE.txt"}


def test_resources_are_found_in_this_install():
    root = files("napari_fedsam.resources")
    for name in resource_files():
        assert root.joinpath(*name.split("/")).read_bytes() == (RESOURCES / name).read_bytes()


def test_setup_cfg_lists_every_package():
    configuration = configparser.ConfigParser()
    configuration.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    listed = configuration["options"]["packages"].split()
    assert listed == sorted({*find_packages(str(REPOSITORY / "src")), "napari_fedsam.resources"})


def test_every_folder_with_modules_is_a_package():
    for module in PACKAGE.rglob("*.py"):
        assert (module.parent / "__init__.py").is_file(), module


def test_every_module_says_what_it_is_for():
    for module in (*PACKAGE.rglob("*.py"), RESOURCES / "__init__.py"):
        assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))), module


def test_the_version_is_the_newest_in_the_changelog():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, flags=re.MULTILINE)
    assert newest is not None
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert newest[1] == project["version"] == version("napari-fedsam")
