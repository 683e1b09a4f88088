"""Texts of any origin: encodings, line ends, and what is no text at all."""

import gzip

import pytest

from common.text.files import decode_text, iter_lines, read_lines
from common.text.values import file_name_of, text_of

TEXT = "é\n\nnext\x85line\u2028\r\n\x0bend\rhere"
LINES = ["é", "", "next\x85line\u2028", "\x0bend", "here"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_end_at_line_ends_alone(tmp_path, encoding):
    path = tmp_path / "t.txt"
    path.write_bytes(("\ufeff" * (encoding == "utf-8-sig") + TEXT).encode(encoding))  # two marks
    assert read_lines(path) == LINES
    assert list(iter_lines(path)) == [(number, line) for number, line in enumerate(LINES, 1) if line.strip()]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a\nü\n".encode("cp1252"), r"in line 2 \(byte 0xfc\).*iconv -f ENCODING -t UTF-8"),
        ("a\r\n\r\n红\r".encode("gbk"), r"in line 3 \(byte 0xba\)"),
        ("a\r赤".encode("shift_jis"), "in line 2"),
        (b"a\n\xed\xa0\xbd", "in line 2"),  # half an emoji
        ("ab".encode("utf-16-be"), "UTF-16 without a byte order mark"),
        ("ab\n".encode("utf-16") + b"\0", r"in line 2 \(broken UTF-16\)"),
        ("ab".encode("utf-32"), "UTF-32"),
        (gzip.compress(b"a", mtime=0), "gzip"),
        (b"PK\x03\x04\xff", "xlsx"),
        (b"PAR1\xff", "Parquet"),
    ],
)
def test_other_encodings_are_refused_with_the_line(data, words):
    with pytest.raises(ValueError, match=f"^not UTF-8 text.*{words}"):
        decode_text(data)


@pytest.mark.parametrize("value", [5, float("nan"), True, None, {"a": 1}, ["a"], b"a", "\ud83d", "a\0"], ids=ascii)
def test_values_that_are_no_text(value):
    with pytest.raises(ValueError, match="^expected text, got |^text with "):
        text_of(value)


def test_paths_of_windows(tmp_path):
    (tmp_path / "odd\\name.png").touch()
    names = ("odd\\name.png", "a\\b.png", "a/b.png", "x" * 5000 + "\\a")
    assert [file_name_of(name, tmp_path) for name in names] == [names[0], "a/b.png", "a/b.png", "x" * 5000 + "/a"]
