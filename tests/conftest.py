"""Settings that hold for all tests."""

from __future__ import annotations

import hypothesis

# The same examples each time, and no clock: the machine may be busy.
hypothesis.settings.register_profile("pyplantx", derandomize=True, deadline=None)
hypothesis.settings.load_profile("pyplantx")
