"""Check an installed napari-fedsam: `python check_installed.py ENVIRONMENT RESOURCES`.

ENVIRONMENT is the folder that the package must come from, RESOURCES the folder of the repository
whose files must all be there.
"""

import importlib
import pkgutil
import sys
from importlib.resources import files
from pathlib import Path

import napari_fedsam


def check_origin(environment: Path) -> None:
    """Stop unless the package is the one in the environment."""
    origin = Path(napari_fedsam.__file__).resolve()
    if not origin.is_relative_to(environment.resolve()):
        raise SystemExit(f"napari_fedsam comes from {origin}, not from {environment}.")


def check_resources(expected: Path) -> int:
    """Compare every file of the repository's resources; return how many there are."""
    installed = files("napari_fedsam.resources")
    names = [
        path.relative_to(expected)
        for path in expected.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    for name in names:
        found = installed.joinpath(*name.parts)
        if not found.is_file() or found.read_bytes() != (expected / name).read_bytes():
            raise SystemExit(f"{name} is missing from the installed resources, or differs.")
    return len(names)


def import_everything() -> int:
    """Import every module of the package; return how many there are."""
    names = [
        module.name
        for module in pkgutil.walk_packages(napari_fedsam.__path__, "napari_fedsam.")
        if not module.name.endswith("__main__")
    ]
    for name in names:
        importlib.import_module(name)
    return len(names)


if __name__ == "__main__":
    check_origin(Path(sys.argv[1]))
    resources = check_resources(Path(sys.argv[2]))
    modules = import_everything()
    sys.stdout.write(f"{resources} resource files and {modules} modules are in place.\n")
