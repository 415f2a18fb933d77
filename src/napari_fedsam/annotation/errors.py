"""What can go wrong while annotating, told as one sentence."""

from napari_fedsam.errors import FedSamError


class AnnotationError(FedSamError):
    """An annotation step cannot be done; the message says what to do instead."""
