"""What can go wrong between a site and its coordinator."""

from enum import StrEnum

from napari_fedsam.errors import FedSamError


class FederationError(FedSamError):
    """A federation could not be set up, joined or run."""


class ReplyCode(StrEnum):
    """Everything that a site may tell the coordinator about a failure.

    Only these words travel. The reason itself stays in the site's own log and status. The last
    ones are the coordinator's about a site's update, which it tells the site.
    """

    RECIPE_MISMATCH = "recipe-mismatch"
    REFUSED_ARRAYS = "refused-arrays"
    TOO_FEW_CASES = "too-few-cases"
    NOT_IN_FEDERATION = "not-in-federation"
    DECLINED = "declined"
    PRIVACY_SPENT = "privacy-spent"
    PARAMETERS_MISSING = "parameters-missing"
    FAILED = "failed"
    REFUSED_BUNDLE = "refused-bundle"
    REFUSED_REQUEST = "refused-request"
    OTHER_ROUND = "other-round"
    UNUSUAL_NORM = "unusual-norm"
    NO_ANSWER = "no-answer"

    @property
    def explanation(self) -> str:
        """The reason in words, for whoever has to act."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    ReplyCode.RECIPE_MISMATCH: "the site works under another recipe: it needs a new invitation",
    ReplyCode.REFUSED_ARRAYS: "names, shapes, types or values of the parameters were wrong",
    ReplyCode.TOO_FEW_CASES: "the site has fewer training cases than the recipe asks for",
    ReplyCode.NOT_IN_FEDERATION: "the site has imported no invitation",
    ReplyCode.DECLINED: "the site is paused, trains at other times, or waits for more new cases",
    ReplyCode.PRIVACY_SPENT: "the site has made as many updates with noise as was agreed",
    ReplyCode.PARAMETERS_MISSING: "the site has other parameters than those it had received",
    ReplyCode.FAILED: "the round failed at the site, whose log says why",
    ReplyCode.REFUSED_BUNDLE: "the site was sent program code that it had not agreed to",
    ReplyCode.REFUSED_REQUEST: "the site was asked for something that is not in the recipe",
    ReplyCode.OTHER_ROUND: "the answer belonged to another round",
    ReplyCode.UNUSUAL_NORM: "the update was far larger than is usual, as from a wrong mask or scan",
    ReplyCode.NO_ANSWER: "no answer came before the round's deadline",
}


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
