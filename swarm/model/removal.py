"""What a node knows of its own removal from the cluster."""

from __future__ import annotations

from enum import StrEnum


class Removal(StrEnum):
    """How sure it is. A removed node hears no log any more, so it learns this from others, or not at all."""

    NONE = ""
    TOLD = "told"
    """Some members say so, fewer than would be believed: nothing starts here until a leader says otherwise."""
    CERTAIN = "certain"
    """The log here says so, or a majority of the members known here: what this node runs, runs elsewhere by now."""
