"""The rehearsal of an upgrade under load, in small: one API and one dispatcher are replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.rollout import Size, lacking, rehearse


@pytest.mark.timeout(300)
def test_an_upgrade_under_load_loses_nothing_burns_no_try_and_answers_no_5xx(
    tmp_path: Path,
) -> None:
    if lack := lacking():
        pytest.skip(lack)
    size = Size(apis=1, dispatchers=1, clients=4, calm_s=1.0, leave_s=3.0)
    report = rehearse(size, tmp_path)
    assert report.faults == []
    assert len(report.seen.posted) > 50
