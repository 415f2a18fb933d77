"""A worklist's flags, order, counts and place, without a window."""

from pathlib import Path

import pytest

from napari_fedsam.annotation.worklist import (
    LONGEST_PAUSE,
    Flag,
    Order,
    Proposal,
    WorkClock,
    Worklist,
    WorklistState,
)

PATHS = [Path(f"/scans/{name}.nii") for name in "abcd"]


def proposal(confidence, disagreement=None, *, structure=1, model="m"):
    return Proposal(
        model=model, structure=structure, confidence=confidence, disagreement=disagreement
    )


@pytest.fixture
def worklist():
    return Worklist(Path("/scans"), PATHS)


def walk(worklist, steps, *, flag=None):
    """Go from scan to scan, and return where that leads."""
    seen = []
    for _ in range(steps):
        index = worklist.next(1)
        seen.append(index)
        if index is None:
            break
        worklist.go_to(index)
        if flag is not None:
            worklist.flag(index, flag)
    return seen


def test_in_order_the_next_comes_after_the_current_and_goes_round(worklist):
    assert walk(worklist, 5) == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("flag", [Flag.DONE, Flag.SKIPPED, Flag.UNSURE])
def test_a_flagged_scan_does_not_come_again(worklist, flag):
    worklist.flag(1, flag)
    assert walk(worklist, 4, flag=flag) == [0, 2, 3, None]
    assert worklist.count(flag) == 4


def test_the_lowest_confidence_comes_first_and_what_is_unknown_last(worklist):
    worklist.set_order(Order.CONFIDENCE)
    worklist.set_proposal(1, proposal(0.9))
    worklist.set_proposal(3, proposal(0.2))
    assert walk(worklist, 5, flag=Flag.DONE) == [3, 1, 2, 0, None]


def test_the_largest_disagreement_comes_first(worklist):
    worklist.set_order(Order.DISAGREEMENT)
    for index, value in enumerate((0.1, None, 0.7, 0.3)):
        worklist.set_proposal(index, proposal(0.5, value))
    assert walk(worklist, 5, flag=Flag.DONE) == [2, 3, 0, 1, None]


def test_a_scan_passed_over_comes_after_the_others(worklist):
    worklist.set_order(Order.CONFIDENCE)
    for index, value in enumerate((0.1, 0.2, 0.3, 0.4)):
        worklist.set_proposal(index, proposal(value))
    assert walk(worklist, 6) == [0, 1, 2, 3, 0, 1]


def test_a_proposal_of_another_structure_does_not_count(worklist):
    worklist.set_order(Order.CONFIDENCE)
    worklist.set_proposal(2, proposal(0.1, structure=2))
    assert worklist.next(1) == 0
    assert worklist.next(2) == 2


def test_a_scan_with_a_problem_is_left_out_until_it_is_chosen(worklist):
    worklist.set_problem(0, "a.nii is damaged: copy it again.")
    assert walk(worklist, 4) == [1, 2, 3, 1]
    worklist.go_to(0)
    assert not worklist.problems


def test_nothing_is_left_on_the_last_scan_to_do(worklist):
    for index in (0, 1, 2):
        worklist.flag(index, Flag.DONE)
    worklist.go_to(3)
    assert worklist.next(1) is None


def test_scans_to_do_are_proposed_on_from_the_current_one(worklist):
    worklist.go_to(2)
    worklist.flag(3, Flag.SKIPPED)
    worklist.set_proposal(2, proposal(0.5))
    assert worklist.to_propose("m", 1) == 0
    assert worklist.to_propose("m", 1, {0}) == 1
    assert worklist.to_propose("newer", 1) == 2
    assert worklist.to_propose("m", 2) == 2
    assert worklist.to_propose("m", 1, {0, 1}) is None


def test_work_adds_up_and_every_change_is_told(worklist):
    told = []
    worklist.changed.connect(lambda: told.append(worklist.entries[1]))
    worklist.add_work(1, seconds=2.5, prompts=1)
    worklist.add_work(1, seconds=1.5, prompts=2)
    assert (worklist.entries[1].seconds, worklist.entries[1].prompts) == (4.0, 3)
    assert len(told) == 2


def test_it_goes_on_where_it_stopped(worklist):
    worklist.go_to(2)
    worklist.flag(0, Flag.UNSURE)
    worklist.add_work(1, prompts=3)
    worklist.set_proposal(3, proposal(0.25, 0.5))
    worklist.set_order(Order.DISAGREEMENT)
    state = WorklistState.model_validate_json(worklist.state.model_dump_json())
    assert Worklist(worklist.origin, PATHS, state).state == worklist.state


def test_new_scans_join_and_one_that_is_gone_keeps_its_history(worklist):
    worklist.flag(0, Flag.DONE)
    worklist.go_to(0)
    new = Path("/scans/new.nii")
    again = Worklist(worklist.origin, [PATHS[1], new], worklist.state)
    assert [entry.path for entry in again.entries] == [PATHS[1], new, PATHS[0]]
    assert again.entries[2].flag is Flag.DONE
    assert again.current == 2


def test_a_long_pause_counts_as_a_short_one():
    times = iter([0.0, 10.0, 10.0 + 3600, 3615.0])
    clock = WorkClock(lambda: next(times))
    assert clock.lap() == 0
    clock.start()
    assert clock.lap() == 10
    assert clock.lap() == LONGEST_PAUSE
    assert clock.lap() == 5
    clock.stop()
    assert clock.lap() == 0
