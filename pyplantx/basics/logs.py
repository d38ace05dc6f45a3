"""The library's logger. Imported on first use: ``logging`` costs six milliseconds, and most runs say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def log() -> logging.Logger:
    """``logging.getLogger("pyplantx")``; the library adds no handlers to it."""
    import logging

    return logging.getLogger("pyplantx")
