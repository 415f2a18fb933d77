"""What can go wrong between a file and a scan, told in one sentence."""

from dataclasses import dataclass, field

from napari_fedsam.errors import FedSamError


class ImagingError(FedSamError):
    """A scan or a mask could not be read or written; the message says what to do."""


@dataclass(frozen=True)
class SeriesInfo:
    """One thing in a DICOM folder that can be opened as a scan.

    Attributes
    ----------
    uid : str
        What `read_scan` takes as `series`: the SeriesInstanceUID, the SOPInstanceUID of a
        multi-frame object or of a picture, or a made-up text where an anonymiser emptied them.
    description : str
        The scanner's free text. It may hold anything, so it is for a person's screen only and
        stays out of `repr`, logs and error messages.
    modality : str
        The DICOM modality (CT, MR, US, ...), "" when unknown.
    n_slices : int
        Number of slices or frames.
    number : int or None
        The SeriesNumber.
    """

    uid: str
    description: str = field(repr=False)
    modality: str
    n_slices: int
    number: int | None = None

    @property
    def name(self) -> str:
        """A name without patient data, such as "CT series 3"."""
        words = [self.modality, "series" if self.modality else "Series"]
        if self.number is not None:
            words.append(str(self.number))
        return " ".join(word for word in words if word)


class MultipleSeriesError(ImagingError):
    """A DICOM folder holds several series and the caller has to pick one.

    Attributes
    ----------
    series : tuple of SeriesInfo
        What can be picked.
    """

    def __init__(self, message: str, series: tuple[SeriesInfo, ...]) -> None:
        super().__init__(message)
        self.series = series
