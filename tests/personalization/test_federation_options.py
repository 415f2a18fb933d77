import datetime

import pytest
from pydantic import ValidationError

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.federation_options import FederationOptions
from napari_fedsam.personalization.recipe import Recipe

NOISE = {"noise": "central", "clipping_norm": 1, "noise_multiplier": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aggregation": "median", "case_cap": 3}, "median has no use for case_cap"),
        ({"aggregation": "krum", "weights": "equal"}, "krum has no use for weights"),
        ({"trimmed_share": 0.1}, "fedavg has no use for trimmed_share"),
        ({"malicious_sites": 2}, "fedavg has no use for malicious_sites"),
        ({"aggregation": "median", "extrapolation": 1.5}, "median has no use for extrapolation"),
        ({"privacy": NOISE, "weights": "equal", "extrapolation": 1.5}, "enlarge the noise"),
        ({"extrapolation": 0.5}, "extrapolation"),
        ({"server_learning_rate": 1.0}, "fedavg has no use for server_learning_rate"),
        ({"weights": "equal", "case_cap": 3}, "case_cap has no use where weights are equal"),
        ({"privacy": NOISE}, "set weights to equal"),
        ({"aggregation": "median", "privacy": NOISE}, "not for median"),
        ({"aggregation": "fedadam", "privacy": NOISE}, "not for fedadam"),
        ({"secure_aggregation": True}, "none could be checked"),
        ({"secure_aggregation": True, "aggregation": "krum"}, "none could be checked"),
        ({"hours": "25:00-06:00"}, "hours"),
        ({"hours": "nights"}, "hours"),
        ({"norm_limit": 1.0}, "norm_limit"),
        ({"aggregation": "mean"}, "aggregation"),
        ({"deadline_minutes": 0}, "deadline_minutes"),
    ],
)
def test_what_cannot_hold_is_refused_when_the_recipe_is_made(options, words):
    with pytest.raises(ValidationError, match=words):
        FederationOptions.model_validate(options)


def test_what_can_hold_is_accepted():
    FederationOptions(weights="equal", privacy=NOISE)
    FederationOptions(privacy={**NOISE, "noise": "local"}, case_cap=5)
    FederationOptions(aggregation="fedadam", case_cap=5, server_learning_rate=1.0)


def recipe(minimum_sites, method="pfedsam", **options):
    return Recipe(
        name="x",
        structures=(Structure(value=1, name="disc", color="#ff0000"),),
        minimum_sites=minimum_sites,
        method=method,
        federation=options,
    )


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"aggregation": "median"}, 3),
        ({"aggregation": "trimmed_mean", "trimmed_share": 0.2}, 5),
        ({"aggregation": "trimmed_mean", "trimmed_share": 0.3}, 4),
        ({"aggregation": "krum"}, 5),
        ({"aggregation": "krum", "malicious_sites": 2}, 7),
    ],
)
def test_robust_aggregation_needs_enough_sites(options, needed):
    recipe(needed, **options)
    with pytest.raises(ValidationError, match=f"at least {needed} sites"):
        recipe(needed - 1, **options)


@pytest.mark.parametrize(
    ("options", "minimum_sites", "warned"),
    [
        ({"aggregation": "krum"}, 5, True),
        ({"aggregation": "trimmed_mean"}, 6, True),
        ({"aggregation": "median"}, 3, True),
        ({"aggregation": "krum", "norm_limit": None}, 5, False),
        ({}, 5, False),
    ],
)
def test_a_norm_limit_that_may_stop_every_robust_round_is_told(options, minimum_sites, warned):
    federation = recipe(minimum_sites, **options).federation
    caution = federation.caution(minimum_sites)
    assert bool(caution) == warned
    if warned:
        assert f"invite at least {minimum_sites + 1} sites" in caution
        assert "set federation.norm_limit to null" in caution


def test_a_method_with_an_average_of_its_own_takes_no_other():
    recipe(2, "fedsca")
    for options in (
        {"aggregation": "median"},
        {"extrapolation": 1.5},
        {"privacy": NOISE, "weights": "equal"},
    ):
        given = f"makes an average for each site.* leave federation.{next(iter(options))} out"
        with pytest.raises(ValidationError, match=given):
            recipe(3, "fedsca", **options)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"aggregation": "median"}),
        ({}, {"weights": "equal"}),
        ({}, {"case_cap": 9}),
        ({}, {"extrapolation": 1.5}),
        ({"aggregation": "fedadam"}, {"server_learning_rate": 0.5}),
        ({"aggregation": "trimmed_mean"}, {"trimmed_share": 0.3}),
        ({"aggregation": "krum"}, {"malicious_sites": 2}),
        ({}, {"norm_limit": None}),
        ({"weights": "equal"}, {"privacy": NOISE}),
        ({}, {"hours": "22:00-06:00"}),
        ({}, {"deadline_minutes": 5}),
    ],
)
def test_every_option_is_part_of_the_hash(before, after):
    assert recipe(9, **before).hash != recipe(9, **{**before, **after}).hash


@pytest.mark.parametrize(
    ("hours", "clock", "may"),
    [
        ("", "12:00", True),
        ("22:00-06:00", "23:30", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("22:00-06:00", "12:00", False),
        ("09:00-17:00", "09:00", True),
        ("09:00-17:00", "17:00", False),
    ],
)
def test_rounds_start_in_the_agreed_hours(hours, clock, may):
    now = datetime.time.fromisoformat(clock).replace(tzinfo=datetime.UTC)
    assert FederationOptions(hours=hours).may_start(now) is may
