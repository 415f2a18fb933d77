"""The structures on offer, with colours that stay apart for colour-blind people too.

A structure is told by its name, in upper or lower case; a number is its own only among others.
"""

from collections.abc import Collection, Iterable, Sequence

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.cases.case import CaseRecord, Structure
from napari_fedsam.imaging.segmentation import PALETTE

FIRST_STRUCTURE = Structure(value=1, name="structure 1", color=PALETTE[0])


def joined_structures(
    known: tuple[Structure, ...], others: tuple[Structure, ...]
) -> tuple[Structure, ...]:
    """Return the known structures, and those of the others whose names are not among them.

    What is known keeps its value, for masks refer to it; others take a free one where theirs is
    taken.

    Raises
    ------
    AnnotationError
        When all 255 values are in use.
    """
    for other in others:
        if any(_key(each) == _key(other) for each in known):
            continue
        if any(each.value == other.value for each in known):
            other = next_structure(known, other.name, definition=other.definition)  # noqa: PLW2901
        known = (*known, other)
    return known


def structures_of_cases(
    records: Iterable[CaseRecord], known: Sequence[Structure] = ()
) -> tuple[Structure, ...]:
    """Return each structure of some cases once, with a value of its own.

    Cases of different days may give one value to two structures, or one structure two values.

    Parameters
    ----------
    records : iterable of CaseRecord
        The oldest first; a structure is spelt and coloured as in its newest case.
    known : sequence of Structure
        With distinct values, which they keep where they are among the cases.

    Raises
    ------
    AnnotationError
        When there are more than 255.
    """
    newest = {_key(record.structure): record.structure for record in records}
    known_values = {_key(each): each.value for each in known if _key(each) in newest}
    values = set(known_values.values())
    found = []
    for key, structure in newest.items():
        value = known_values.get(key)
        if value is None:
            value = structure.value if structure.value not in values else _free_value(values)
            values.add(value)
        found.append(structure.model_copy(update={"value": value}))
    return tuple(found)


def next_structure(
    known: tuple[Structure, ...], name: str, color: str | None = None, definition: str = ""
) -> Structure:
    """Make a structure with the next free value.

    Raises
    ------
    AnnotationError
        When the name is empty or taken, or all 255 values are in use.
    """
    name = name.strip()
    if not name:
        raise AnnotationError("A structure needs a name: type one, such as spleen.")
    if any(structure.name.casefold() == name.casefold() for structure in known):
        raise AnnotationError(f"There is a structure named '{name}' already: choose it instead.")
    free = _free_value({structure.value for structure in known})
    try:
        return Structure(
            value=free,
            name=name,
            color=color or PALETTE[(free - 1) % len(PALETTE)],
            definition=definition,
        )
    except ValueError as error:
        raise AnnotationError(
            f"'{name[:80]}' cannot be a structure's name: use one line of at most 80 characters."
        ) from error


def _key(structure: Structure) -> str:
    return structure.name.casefold()


def _free_value(used: Collection[int]) -> int:
    free = next((value for value in range(1, 256) if value not in used), None)
    if free is None:
        raise AnnotationError("All 255 structure values are in use: start a new federation.")
    return free
