"""From an accepted mask to a case for the local training set."""

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import Window

NO_MODEL = "by hand"


def new_case_of(
    scan: Scan,
    where: SliceKey,
    mask: NDArray[np.bool_],
    *,
    structure: Structure,
    window: Window,
    ask: Ask,
    model: str,
    annotator: str,
    seconds: float,
    false_positive_pixels: int | None = None,
) -> NewCase:
    """Cut the slice out of its scan, as displayed, and put the accepted mask beside it.

    Parameters
    ----------
    scan : Scan
        Its `fingerprint` should have been computed before, in a worker.
    where : SliceKey
        The slice, in display order.
    mask : bool array of shape (H, W)
        All False where the structure is absent.
    model : str
        What proposed the mask.
    false_positive_pixels : int, optional
        What the model had proposed where the structure is absent.
    """
    orientation = scan.orientation
    spacing = None
    if scan.spacing_known:
        down, right = where.in_plane
        spacing = (orientation.display_spacing[down], orientation.display_spacing[right])
    prompts = ask.as_json()
    if false_positive_pixels is not None:
        prompts[0]["false_positive_pixels"] = false_positive_pixels
    return NewCase(
        image=where.pixels(orientation.to_display(scan.pixels)),
        mask=mask,
        structure=structure,
        window=(window.low, window.high),
        scan_key=scan.fingerprint,
        spacing=spacing,
        prompts=prompts,
        patient_key=scan.patient_key,
        modality=scan.modality,
        plane=orientation.plane_name(where.axis),
        slice_index=where.index,
        annotator=annotator,
        model=model,
        seconds=seconds,
        clicks=ask.prompt_count,
    )
