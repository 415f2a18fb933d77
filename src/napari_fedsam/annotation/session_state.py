"""A session's state as what is saved of it, and back."""

from typing import Any

from napari_fedsam.annotation.acceptance import Acceptance
from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.new_case import new_case_of
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.session_file import SavedPlace, SavedSession, SessionState
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.work import Place
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import Window


def state_of(session: AnnotationSession) -> SessionState:
    """Return the state of a session with an open scan; the fingerprint is left empty."""
    view, scan = session.view, session.scan
    if scan is None:
        raise AnnotationError("There is no session to save: open a scan first.")
    places = [
        SavedPlace(**_where(place), prompts=tuple(ask.as_json()))
        for place, ask in session.asks.items()
    ]
    places += [
        SavedPlace(**_where(place), case=acceptance.record.id)
        for place, acceptance in session.acceptances.items()
        if acceptance.record is not None
    ]
    return SessionState(
        scan=scan.name,
        source=str(scan.source.resolve()),
        fingerprint="",
        axis=view.slice.axis,
        index=view.slice.index,
        structure=view.structure.value,
        window=(view.window.low, view.window.high),
        structures=view.structures,
        preserve_others=session.preserve_others,
        linked=session.crosshair.is_on,
        crosshair=session.crosshair.point,
        places=tuple(places),
    )


def acceptances_of(saved: SavedSession, scan: Scan, store: CaseStore) -> list[Acceptance]:
    """Return what a saved session had accepted, as far as the cases exist (slow: reads them).

    Raises
    ------
    AnnotationError
        When the saved session belongs to another scan.
    """
    if scan.fingerprint != saved.state.fingerprint:
        raise AnnotationError(
            f"The file of {saved.state.scan} has changed since the session was saved: its masks "
            "do not fit any more, so nothing was restored."
        )
    found = []
    structures = {each.value: each for each in saved.state.structures}
    for where in saved.state.places:
        if where.case is None or where.structure not in structures:
            continue
        try:
            case = store.load(where.case)
        except FedSamError:
            # Someone deleted the case; the mask is in the segmentation all the same.
            continue
        place = _place(where)
        new = new_case_of(
            scan,
            place.slice,
            case.mask,
            structure=structures[where.structure],
            window=Window(*case.record.window),
            ask=Ask(),
            model=case.record.model,
            annotator=case.record.annotator,
            seconds=case.record.seconds or 0.0,
        )
        nothing = LabelEdit.giving(case.mask[None] * 1, SliceKey(0, 0), 1, case.mask)
        found.append(Acceptance(place, Ask(), new, nothing, record=case.record))
    return found


def restore(session: AnnotationSession, saved: SavedSession, accepted: list[Acceptance]) -> None:
    """Bring a saved session back, on its scan that has just been opened.

    Parameters
    ----------
    session : AnnotationSession
        With the saved session's scan open.
    saved : SavedSession
    accepted : list of Acceptance
        From `acceptances_of`.
    """
    state, view = saved.state, session.view
    view.offer_structures(state.structures)
    view.choose_structure(state.structure)
    view.set_window(Window(*state.window))
    session.set_preserve_others(state.preserve_others)
    asks = {_place(where): Ask.from_json(where.prompts) for where in state.places if where.prompts}
    session.resume(asks, accepted, saved.edits)
    view.show_slice(state.axis, state.index)
    session.crosshair.turn(state.linked)
    if state.crosshair is not None:
        session.crosshair.move_to(state.crosshair)


def _where(place: Place) -> dict[str, Any]:
    key = place.slice
    return {"axis": key.axis, "index": key.index, "structure": place.structure}


def _place(where: SavedPlace) -> Place:
    return Place(SliceKey(where.axis, where.index), where.structure)
