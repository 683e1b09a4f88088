"""Progress in a file or pipe: lines without carriage returns, none for short work."""

import time

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


def test_short_or_quiet_work_prints_nothing(capsys, monkeypatch):
    assert list(progress_bar.progress_bar([1, 2])) == [1, 2]
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0)
    assert list(progress_bar.progress_bar([1, 2], quiet=True)) == [1, 2]
    assert capsys.readouterr().err == ""
