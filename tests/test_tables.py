"""Tables and record files: what is read, what is refused, and which file and line an error names."""

import json

import pytest

from common.text.tables import check_record, read_records, read_rows, read_table


def test_a_table_with_a_byte_order_mark_and_separators_at_the_ends(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffimage,text,\r\na.png,"two,\r\nlines"\r\n\r\nb.png,星,\r\n'.encode())
    columns, rows = read_table(path)
    assert columns == ["image", "text"]
    assert rows == [{"image": "a.png", "text": "two,\r\nlines"}, {"image": "b.png", "text": "星"}]
    assert [line for line, _ in read_rows(path)] == [1, 2, 5]


def test_a_tsv_is_split_at_tabs(tmp_path):
    (tmp_path / "t.tsv").write_text("path\tlabel\na,b.png\tcat\n")
    assert read_table(tmp_path / "t.tsv")[1] == [{"path": "a,b.png", "label": "cat"}]


def test_separators_and_encodings_of_spreadsheets(tmp_path):
    path, rows = tmp_path / "t.csv", [{"image": "a.png", "text": "red, round; \u2028\x85\x0b"}]
    cells = 'image;text\r\na.png;"red, round; \u2028\x85\x0b"\r\n'
    for content in (cells, "sep=;\r\n" + cells, "\ufeff" + cells, cells.replace("\r\n", "\r")):
        for encoding in ("utf-8", "utf-16"):
            path.write_bytes(content.encode(encoding))
            assert read_table(path)[1] == rows
    path.write_text("image;red, round\na.png;x, y\n")  # two cells at , too: the names decide
    assert read_table(path, {"red, round": "--text"})[1] == [{"image": "a.png", "red, round": "x, y"}]
    path.write_text("image,text\na.png," + "x" * 200_000)
    assert len(read_table(path)[1][0]["text"]) == 200_000


@pytest.mark.parametrize(
    "content, words",
    [
        (b"image,text,image\n", r"t.csv: .*'image' more than once"),
        (b"image,text\na.png,x\nb.png,red, small\n", r"t.csv line 3: 3 cells for 2 columns"),
        (b"image,label\n", r"unknown column 'text'.*it has image, label; --text_column"),
        (b"", r"unknown column 'text'"),
        (b"image,text\na.png,\xff\n", r"t.csv: not UTF-8 text in line 2 .*iconv -f"),
        (b"image,text\na.png\n", r"t.csv line 2: 1 cells for 2 columns"),
        (b'image,text\na.png,x\nb.png,"\n' + b"c.png,y\n" * 20_000, r"t.csv line 3: its quote never ends"),
        (b'image,text\na.png,"red" hair\n', r"t.csv line 2: .*written twice"),
        (b"image,text\na.png,\0\n", r"t.csv line 2: .*NUL"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"t.csv: a Git LFS pointer"),
    ],
)
def test_faults_of_a_table_name_file_and_line(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_table(tmp_path / "t.csv", {"text": "--text_column"})
    assert len(str(caught.value).splitlines()) == 1


def test_records_are_the_same_in_every_format(tmp_path):
    records = [{"image": "a.png", "text": "a"}, {"image": "b.png", "text": "b"}]
    contents = {
        "r.csv": "image,text\na.png,a\nb.png,b\n",
        "r.tsv": "image\ttext\na.png\ta\nb.png\tb\n",
        "r.json": json.dumps(records, indent=1),
        "r.jsonl": "\n".join(map(json.dumps, records)),
        "lines.json": "\n".join(map(json.dumps, records)),
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert [record for _, record in read_records(tmp_path / name)] == records, name


def test_a_broken_line_takes_its_own_place(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n\nnot json\n[2]\n')
    (first, good), (second, broken), (_, listed) = read_records(path)
    assert (first, good, second) == (f"{path} line 1", {"a": 1}, f"{path} line 3")
    check_record(good)
    for record, words in ((broken, "not JSON"), (listed, "not a JSON object")):
        with pytest.raises(ValueError, match=words):
            check_record(record)


def test_a_missing_file_and_one_that_is_no_json(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file \(--data\)"):
        list(read_records(tmp_path / "r.json", "--data"))
    (tmp_path / "r.json").write_text("hello")
    with pytest.raises(ValueError, match="neither JSON nor JSON Lines"):
        list(read_records(tmp_path / "r.json"))


def test_lines_end_at_line_ends_alone_and_a_line_that_is_no_text_costs_itself(tmp_path):
    path, records = tmp_path / "r.jsonl", [{"text": "\x85\u2028"}, {"text": "b"}]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    for end in ("\n", "\r\n", "\r"):
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            path.write_bytes(end.join(lines).encode(encoding))
            assert [record for _, record in read_records(path)] == records
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xe9"}\n{}\n')
    sources, (*_, broken, last) = zip(*read_records(path))
    assert sources[-2] == f"{path} line 3" and "not UTF-8 text in line 3" in str(broken) and last == {}
    path.with_suffix(".csv").write_text("image,text\na.png\nb.png,x\n")
    (first, short), (_, row) = read_records(path.with_suffix(".csv"))
    assert first.endswith("line 2") and isinstance(short, ValueError) and row == {"image": "b.png", "text": "x"}


@pytest.mark.parametrize(
    "text",
    ['[{"a": 1}, 2 ,\n[3]]\n', "[]", " [ ]\n", "[1]", '{"a": [1]}', "[1,]", "[1 2]", "[1]x", "[1", "[,1]", "", "[[1]"],
)
def test_a_list_is_parsed_one_element_after_the_other(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    try:
        content = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match="r.json: neither JSON nor JSON Lines"):
            list(read_records(path))
    else:
        assert [record for _, record in read_records(path)] == (content if isinstance(content, list) else [content])
