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
