"""Training in a child process: cancelled, refused, ended by others, and told as a sentence."""

import os
import queue
import signal
import sys

import pytest
from filelock import FileLock

from napari_fedsam.annotation.local_training import LocalTraining, TrainingState
from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.personalization.recipe import MethodOptions, Recipe, TrainingOptions
from napari_fedsam.training.versions import VersionStore

SPLEEN = Structure(value=3, name="spleen", color="#112233")
# Training gives way to whatever else a busy machine does.
WAIT = 600


class Watched:
    """Training, and what it has told of itself."""

    def __init__(self) -> None:
        self.training = LocalTraining()
        self._states: queue.Queue[TrainingState] = queue.Queue()
        self.training.changed.connect(self._states.put)

    def start(self, site, structures=()) -> None:
        self.training.start(ModelSource(site), structures)

    def wait_for_steps(self, number: int) -> None:
        """Wait until so many steps were done, one case each."""
        while number:
            state = self._states.get(timeout=WAIT)
            assert state.status == "running", state.reason
            number -= state.fraction > 0

    def end(self) -> TrainingState:
        """Wait until it has ended, however that came."""
        state = self._states.get(timeout=WAIT)
        while state.status == "running":
            state = self._states.get(timeout=WAIT)
        return state


@pytest.fixture
def watched():
    watched = Watched()
    yield watched
    watched.training.cancel()


@pytest.fixture
def site(tmp_path, scene):
    """Return a site with one training case, whose training takes very long."""
    recipe = Recipe(
        name="spleen",
        structures=(SPLEEN,),
        options=MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1),
        training=TrainingOptions(epochs=5000, local_share=0, augmentations=0),
    )
    (tmp_path / "federation").mkdir()
    recipe.write(tmp_path / "federation" / "recipe.json")
    CaseStore(tmp_path / "cases").accept(
        NewCase(
            image=scene.image,
            mask=scene.ellipse,
            structure=SPLEEN,
            window=(0, 255),
            scan_key="scan",
            split="train",
        )
    )
    return tmp_path


def log_of(site):
    return site / "logs" / "training.log"


def test_cancelled_training_leaves_nothing_and_can_start_again(site, watched, training_children):
    watched.start(site)
    (child,) = training_children()
    watched.start(site)
    assert training_children() == [child]
    # The features of its one case are kept by then, so that nothing is being written.
    watched.wait_for_steps(3)
    watched.training.cancel()
    assert watched.end() == TrainingState()
    assert not watched.training.running
    assert not child.is_running()
    assert log_of(site).read_text() == ""
    assert not [path for path in (site / "versions").glob("*") if path.is_dir()]
    with FileLock(site / "versions" / ".lock", timeout=0):
        features = list((site / "cache").iterdir())
    assert features
    assert not [path for path in features if path.name.startswith(".")]
    watched.start(site)
    watched.wait_for_steps(1)


def test_what_the_system_refuses_to_the_child_is_told_and_logged(site, watched):
    (site / "cache").write_text("")
    log_of(site).parent.mkdir()
    log_of(site).write_text("the training before")
    watched.start(site)
    if sys.platform != "win32":
        assert log_of(site).parent.stat().st_mode & 0o077 == 0
    state = watched.end()
    assert state.status == "failed"
    assert state.reason == (
        f"Training stopped, for {site / 'cache'} cannot be used (File exists): make room on its "
        "disk, mend its rights or move it away, then train again."
    )
    log = log_of(site).read_text()
    assert log.startswith("Traceback")
    assert "FileExistsError" in log


def test_what_the_child_cannot_do_is_told_and_logged(site, watched):
    store = CaseStore(site / "cases")
    store.delete(store.records()[0].id)
    watched.start(site)
    state = watched.end()
    assert state.status == "failed"
    assert state.reason.startswith("There are no training cases")
    assert "Traceback" in log_of(site).read_text()


@pytest.fixture
def no_core_files():
    resource = pytest.importorskip("resource", reason="Windows leaves no core files")
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize(
    ("ended_by", "said", "logged"),
    [
        ("SIGKILL", "The system ended training, most likely for want of memory", ""),
        ("SIGABRT", "Training ended before it was done", "Fatal Python error: Aborted"),
    ],
)
def test_a_child_that_is_ended_is_told_with_its_log(
    site, watched, training_children, no_core_files, ended_by, said, logged
):
    watched.start(site)
    watched.wait_for_steps(1)
    (child,) = training_children()
    os.kill(child.pid, getattr(signal, ended_by))
    state = watched.end()
    assert state.status == "failed"
    assert state.reason.startswith(said)
    assert str(log_of(site)) in state.reason
    assert logged in log_of(site).read_text()
    assert VersionStore(site / "versions").versions() == []


def test_what_the_system_refuses_at_the_start_is_told(tmp_path, watched, training_children):
    site = tmp_path / "site"
    refused = f"^Training could not start, for {site}.* cannot be used"
    # Nowhere to write the recipe, then nowhere to write the log.
    with pytest.raises(FedSamError, match=refused):
        watched.start(site, [SPLEEN])
    site.mkdir()
    (site / "logs").write_text("")
    with pytest.raises(FedSamError, match=refused):
        watched.start(site, [SPLEEN])
    assert not watched.training.running
    assert not training_children()
