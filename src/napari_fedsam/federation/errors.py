"""What can go wrong between a site and its coordinator."""

from enum import StrEnum

from napari_fedsam.errors import FedSamError


class FederationError(FedSamError):
    """A federation could not be set up, joined or run."""


class ReplyCode(StrEnum):
    """Everything that a site may tell the coordinator about a failure.

    Only these words travel. The reason itself stays in the site's own log and status.
    """

    RECIPE_MISMATCH = "recipe-mismatch"
    REFUSED_ARRAYS = "refused-arrays"
    TOO_FEW_CASES = "too-few-cases"
    NOT_IN_FEDERATION = "not-in-federation"
    STOPPED = "stopped"
    FAILED = "failed"
    REFUSED_BUNDLE = "refused-bundle"


class RefusedMessageError(FederationError):
    """A message was refused by the checks of the end that received it.

    Attributes
    ----------
    code : ReplyCode
        What the other end may know.
    """

    def __init__(self, code: ReplyCode, message: str) -> None:
        super().__init__(message)
        self.code = code
