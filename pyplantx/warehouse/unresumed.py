"""Unfinished work in a signed store: what a killed run has left there is not signed, so nothing of it is taken up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyplantx.warehouse.resume import Workspaces

if TYPE_CHECKING:
    from pyplantx.core.trace import Digest
    from pyplantx.warehouse.resume import Workspace


class NoWorkspaces(Workspaces):
    """`Workspaces` that give none: reactors begin anew."""

    def take(self, reactor: str, key: Digest) -> Workspace | None:
        """None, as if another process held it."""
        return None
