"""Every Python block of the README and the guide runs, and prints what the page says."""

from __future__ import annotations

import pytest
from pages import ROOT, fences, play_python

CANDIDATES = [ROOT / "README.md", *sorted(ROOT.glob("docs/guide/*.md")), *sorted(ROOT.glob("docs/reference/*.md"))]
PAGES = [page for page in CANDIDATES if any(block.language == "python" for block in fences(page.read_text("utf-8")))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, tmp_path):
    played = play_python(page, tmp_path)
    for step in played:
        assert not step.error, f"{page.name}:{step.fence.line}\n{step.error}"
        assert step.printed == step.said, f"{page.name}:{step.fence.line}"


def test_the_guide_is_played():
    assert len([page for page in PAGES if page.parent.name == "guide"]) >= 8
