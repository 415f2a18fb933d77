"""The site's cases change while it trains."""

import pytest

from napari_fedsam.cases.store import CaseStore

pytestmark = [pytest.mark.federation, pytest.mark.faults, pytest.mark.slow]


def test_cases_that_change_during_training_count_in_the_next_round(federation, add_cases):
    store = CaseStore(federation.site.files.cases)
    first_case = store.records(split="train")[0].id
    running = federation.rounds(2)
    # A training that has taken a step has read its cases.
    federation.wait_until(lambda: federation.state.progress > 0, 300, "the site trains")
    add_cases(federation.site.files.site, train=3, val=0, seed=9)
    store.delete(first_case)
    running.finish()
    assert [result.cases for result in federation.coordinator.results()] == [6, 8]
    federation.assert_nothing_is_lost(2, cases=6 + 1 + 3 - 1)
    assert store.verify() == []
