"""The structures of a session: added by the person, or agreed on in a federation."""

import pytest

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.cases.case import Structure

SPLEEN = Structure(value=1, name="spleen", color="#112233")


def test_added_structures_get_the_next_value_and_their_own_colour(session):
    liver = session.view.add_structure("liver")
    assert (liver.value, liver.name) == (2, "liver")
    assert liver.color != session.view.structures[0].color
    assert session.view.structure == liver


@pytest.mark.parametrize("name", ["", "  ", "Structure 1", "two\nlines"])
def test_bad_structure_names_are_refused(session, name):
    with pytest.raises(AnnotationError):
        session.view.add_structure(name)
    assert len(session.view.structures) == 1


def test_offered_structures_replace_the_others(session):
    session.view.offer_structures((SPLEEN,))
    assert session.view.structure == SPLEEN
    with pytest.raises(AnnotationError, match="No structure has the value 9"):
        session.view.choose_structure(9)
    with pytest.raises(AnnotationError, match="No structure is on offer"):
        session.view.offer_structures(())


def test_structures_that_are_agreed_on_later_leave_masks_what_they_are(session, clicked, store):
    session.view.offer_structures((Structure(value=1, name="liver", color="#445566"),))
    clicked(session)
    session.accept()
    session.offer_structures((SPLEEN, Structure(value=2, name="Liver", color="#445566")))
    assert [(each.value, each.name) for each in session.view.structures] == [
        (1, "liver"),
        (2, "spleen"),
    ]
    assert session.view.structure.name == "liver"
    clicked(session, 20, 12)
    session.accept()
    assert [record.structure.name for record in store.records()] == ["liver"]
    assert session.undo()


def test_without_work_the_structures_agreed_on_take_the_place_of_the_others(session):
    session.offer_structures((SPLEEN,))
    assert session.view.structures == (SPLEEN,)
