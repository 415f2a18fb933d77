"""Failures of training, evaluation and model versions."""

from pathlib import Path

from napari_fedsam.errors import FedSamError


class TrainingError(FedSamError):
    """Training or evaluation cannot run."""


def refused_by_system(what: str, error: OSError, folder: Path) -> TrainingError:
    """Tell as one sentence that the operating system refused something to training.

    Parameters
    ----------
    what : str
        The start of the sentence, for instance "Training could not start".
    error : OSError
    folder : Path
        Named where the error names no file, as on a full disk.
    """
    return TrainingError(
        f"{what}, for {error.filename or folder} cannot be used ({error.strerror or error}): make "
        "room on its disk, mend its rights or move it away, then train again."
    )


class CancelledError(TrainingError):
    """The caller asked training to stop."""


class ManifestError(FedSamError):
    """A manifest, or a file that it names, cannot be used."""


class VersionError(FedSamError):
    """A model version is missing, broken, or of another recipe."""
