"""A person who types commands."""

import pytest
from typer.testing import CliRunner

from napari_fedsam.app.cli import app
from napari_fedsam.errors import FedSamError


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
