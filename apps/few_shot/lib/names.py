"""Ids and tags of a request are names: the one rule of the door and of the datastore."""

from __future__ import annotations

from fsmis_components.data.errors import DataError
from fsmis_components.support.studies import is_plain_name


def check_name(what: str, text: str) -> None:
    """Refuse an id that leads into another folder.

    Raises:
        DataError: one sentence that begins with `what`.
    """
    if not is_plain_name(text):
        raise DataError(f"{what}: expected a plain name, without folders and signs.")


def check_tag(tag: str) -> None:
    """Refuse a tag of labels that is no word; errors as above."""
    # the enumeration's members are texts too
    text = str(getattr(tag, "value", tag))
    if not (text.isascii() and text.replace("_", "").isalnum()):
        raise DataError("tag: expected a name of letters, digits and _.")
