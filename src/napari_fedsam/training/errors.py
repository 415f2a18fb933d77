"""Failures of training, evaluation and model versions."""

from napari_fedsam.errors import FedSamError


class TrainingError(FedSamError):
    """Training or evaluation cannot run."""


class CancelledError(TrainingError):
    """The caller asked training to stop."""


class ManifestError(FedSamError):
    """A manifest, or a file that it names, cannot be used."""


class VersionError(FedSamError):
    """A model version is missing, broken, or of another recipe."""
