"""The cable between a real site and a real coordinator is cut in a round."""

import pytest

from napari_fedsam.federation.site_state import Phase

pytestmark = [pytest.mark.federation, pytest.mark.faults, pytest.mark.slow]

# A part of the shared parameters that travel, and far more than anything else that does.
_PART = 500_000


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_cut_while_parameters_travel_costs_no_round(federation, recovery, direction):
    federation.relay.cut_within(direction, _PART)
    running = federation.rounds(1)
    assert federation.relay.is_cut.wait(300)
    federation.wait_for(Phase.CONNECTING)
    assert "trying again" in federation.site.state.message
    with recovery():
        federation.relay.mend()
        federation.wait_for_rounds(1)
    running.finish()
    federation.assert_nothing_is_lost(1)
