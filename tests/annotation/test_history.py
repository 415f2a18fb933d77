import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.annotation.history import History, Step


def test_a_new_step_forgets_what_was_taken_back():
    log = []
    history = History()
    for name in "ab":
        history.record(
            Step(lambda name=name: log.append(f"-{name}"), lambda name=name: log.append(f"+{name}"))
        )
    assert history.undo()
    assert history.redo()
    assert history.undo()
    history.record(Step(lambda: log.append("-c"), lambda: log.append("+c")))
    assert not history.redo()
    assert log == ["-b", "+b", "-b"]
    while history.undo():
        pass
    assert log[-2:] == ["-c", "-a"]


def test_a_step_that_fails_stays_to_be_tried_again():
    fails, log = [True], []

    def fail_once(name):
        if fails[0]:
            fails[0] = False
            raise ValueError(name)
        log.append(name)

    history = History()
    history.record(Step(lambda: fail_once("-"), lambda: fail_once("+")))
    with pytest.raises(ValueError, match="-"):
        history.undo()
    assert not history.redo()
    assert history.undo()
    fails[0] = True
    with pytest.raises(ValueError, match=r"\+"):
        history.redo()
    assert not history.undo()
    assert history.redo()
    assert log == ["-", "+"]


@given(st.integers(101, 400))
def test_there_is_no_limit(count):
    value = [0]
    history = History()

    def add(amount):
        value[0] += amount

    for _ in range(count):
        add(1)
        history.record(Step(lambda: add(-1), lambda: add(1)))
    while history.undo():
        pass
    assert value == [0]
    while history.redo():
        pass
    assert value == [count]
