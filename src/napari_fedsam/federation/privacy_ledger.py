"""How many updates with noise a site has made: what it was promised holds for so many alone."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.recipe import Recipe


class PrivacyLedger(BaseModel):
    """The updates with this site's own noise, counted before they leave.

    Attributes
    ----------
    updates : dict of str to int
        Their number under each recipe, by its hash. A round that is repeated counts again, for its
        noise is drawn anew.
    """

    model_config = ConfigDict(frozen=True)

    updates: dict[str, NonNegativeInt] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "PrivacyLedger":
        """Read the file; without one nothing has been sent.

        Raises
        ------
        RefusedMessageError
            When it is damaged, so that nobody knows what has been sent.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (ValidationError, UnicodeDecodeError):
            raise RefusedMessageError(
                ReplyCode.PRIVACY_SPENT,
                f"{path} is damaged, so it is not known how many updates with noise have left "
                "this site, and no more are sent; restore it, or ask the coordinator for an "
                "invitation to a new federation.",
            ) from None


def check_privacy(path: Path, recipe: Recipe) -> None:
    """Refuse a round beyond those that epsilon was stated for.

    Parameters
    ----------
    path : Path
        The site's ledger.
    recipe : Recipe
        The agreed recipe; any round passes without local noise.

    Raises
    ------
    RefusedMessageError
        When as many updates were made as the recipe has rounds, or the ledger is damaged.
    """
    privacy = recipe.federation.privacy
    if privacy is None or privacy.noise != "local":
        return
    made = PrivacyLedger.read(path).updates.get(recipe.hash, 0)
    if made >= recipe.rounds:
        raise RefusedMessageError(
            ReplyCode.PRIVACY_SPENT,
            f"This site has made {made} updates with noise, as many as the epsilon of this "
            "federation was stated for, and makes no more; the coordinator would have to agree on "
            "a recipe of more rounds with you.",
        )


def count_update(path: Path, recipe: Recipe) -> None:
    """Count an update with local noise, before it is made."""
    made = PrivacyLedger.read(path).updates
    ledger = PrivacyLedger(updates={**made, recipe.hash: made.get(recipe.hash, 0) + 1})
    write_text_atomically(path, ledger.model_dump_json())
