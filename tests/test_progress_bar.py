"""Progress in a file or pipe: lines without carriage returns, none for short work."""

import re
import time

import pytest

from common.cli import progress_bar


def test_lines_without_carriage_returns(capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.01)
    with progress_bar.progress_bar(desc="outer", total=3, unit="img") as bar:
        for _ in range(3):
            for _ in progress_bar.progress_bar(range(2), "inner"):
                time.sleep(0.02)
            bar.update()
    shown = capsys.readouterr().err
    assert "\r" not in shown and "\x1b" not in shown
    assert "inner: 2/2 it" in shown and "outer: 3/3 img" in shown.splitlines()[-1]


@pytest.mark.parametrize("steps, step_seconds, distance", [(16, 1, 5), (100, 1, 10), (1000, 1, 30), (4, 60, 60)])
def test_a_line_each_tenth_but_not_too_many_and_not_too_few(capsys, steps, step_seconds, distance):
    clock = [0.0]
    with progress_bar.training_bar(steps, 0) as bar:
        bar._time, bar.start_t, bar.last_print_t = lambda: clock[0], 0.0, 0.0
        for _ in range(steps - 1):
            clock[0] += step_seconds
            bar.update()
    shown = [int(line) * step_seconds for line in re.findall(r"^(\d+)/", capsys.readouterr().err, re.MULTILINE)]
    assert shown == list(range(distance, steps * step_seconds, distance))


def test_short_or_quiet_work_prints_nothing(capsys, monkeypatch):
    assert list(progress_bar.progress_bar([1, 2])) == [1, 2]
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0)
    assert list(progress_bar.progress_bar([1, 2], quiet=True)) == [1, 2]
    assert capsys.readouterr().err == ""
