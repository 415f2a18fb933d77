"""Recipes of the rounds' tests."""

import pytest

from napari_fedsam.personalization.federation_options import FederationOptions


@pytest.fixture
def agreed(recipe):
    """Return the recipe with other options of the federation."""

    def make(minimum_sites=2, method="pfedsam", **options):
        changes = {"federation": FederationOptions(**options), "minimum_sites": minimum_sites}
        if method != recipe.method:
            changes.update(method=method, options=type(recipe.options)())
        return recipe.model_copy(update=changes)

    return make
