"""One site of a federation that is sent one instruction at a time."""

import pytest
from flwr.app import Message, RecordDict

from napari_fedsam.federation import round_work
from napari_fedsam.federation.client_app import app
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import config_record
from napari_fedsam.federation.packed_parameters import pack_parameters
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.training.local_update import LocalUpdate


@pytest.fixture
def site(tmp_path, recipe):
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe)
    files = SiteFiles(tmp_path / "site")
    coordinator.invite("a site").install(files)
    return files


@pytest.fixture
def ask(site, recipe, start):
    """Return a function that sends the site any instruction and returns its reply and bytes."""
    sent = []
    grid = InProcessGrid(app, {2: site.site}, sent=lambda _node, payload: sent.append(payload))

    def ask(kind: str, *, recipe_hash=recipe.hash, number=1, **records) -> tuple[Message, bytes]:
        content = {
            "shared": pack_parameters(start[0]),
            "config": config_record(recipe_hash, number),
            **records,
        }
        message = grid.create_message(RecordDict(content), kind, 2, str(number))
        (reply,) = grid.send_and_receive([message])
        return reply, sent[-1]

    return ask


@pytest.fixture
def demand(site, ask, add_cases, planted):
    """Return a function that asks a site with cases what it refuses: its code and the bytes."""
    add_cases(site.site, **planted)

    def demand(kind, **records):
        reply, payload = ask(kind, **records)
        return reply.error.reason, payload

    return demand


@pytest.fixture
def no_training(monkeypatch):
    """Let training do nothing; return the list of the shared parameters that it was begun with."""
    begun = []
    done = LocalUpdate(samples=2, steps=0, loss=0.0, losses=(), seconds=0.0)

    def local_update(model, *_args, **_options):
        begun.append(model.shared_state())
        return done

    monkeypatch.setattr(round_work, "local_update", local_update)
    return begun
