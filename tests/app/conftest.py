"""A person who types commands, and a site with a model of its own."""

import pytest
from typer.testing import CliRunner

from napari_fedsam.app.cli import app
from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import MethodOptions, Recipe
from napari_fedsam.training.versions import VersionStore


@pytest.fixture
def type_in(monkeypatch):
    """Return a function that types a command and returns what was printed."""
    monkeypatch.setattr("napari_fedsam.app.console.console.soft_wrap", True)

    def type_in(*words, answer=""):
        result = CliRunner().invoke(app, [str(word) for word in words], input=answer)
        if isinstance(result.exception, FedSamError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    return type_in


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "site"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of a site that uses a model of its own, whose only structure has the value 2."""
    folder = tmp_path_factory.mktemp("site")
    spleen = Structure(value=2, name="Spleen", color="#56b4e9")
    options = MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1)
    recipe = Recipe(name="organs", structures=(spleen,), options=options)
    recipe.write(folder / "recipe.json")
    model, store = build_personalised_model(recipe), VersionStore(folder / "versions")
    version = store.save(
        model.shared_state(), model.local_state(), round=1, recipe=recipe, dice={}, passed=True
    )
    store.activate(version.number)
    return folder
