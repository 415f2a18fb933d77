import itertools

import pytest
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.shortcuts import default_shortcuts

from napari_fedsam.widgets.dock import FedSamWidget
from napari_fedsam.widgets.keys import ACTIONS


def test_no_key_is_naparis():
    taken = {str(key) for key in itertools.chain.from_iterable(default_shortcuts.values())}
    ours = {str(coerce_keybinding(action.key)) for action in ACTIONS}
    assert not ours & taken
    assert len(ours) == len(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_every_key_has_a_method(action):
    assert callable(getattr(FedSamWidget, action.call[0]))
    assert action.description
