"""Shards of any tool from a folder or a server: their names, their samples, their number of samples."""

import json
import tarfile

import pytest
from fsspec.implementations.http import HTTPFileSystem
from shard_server import Faults, picture, sample_members, serve, write_shards, write_tar

from common.streaming import shard_reader, urls
from common.streaming.counts import count_samples
from common.streaming.shard_reader import ShardError, read_samples
from common.streaming.urls import expand_urls, is_streamed


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(shard_reader, "PAUSE", 0.001)
    monkeypatch.setattr(urls, "TIMEOUT", 0.15)
    HTTPFileSystem.clear_instance_cache()  # whose session has the timeout


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), shards=3)


def keys_of(url):
    return [sample["__key__"] for sample in read_samples(str(url))]


def test_names_of_shards(shards, tmp_path, monkeypatch):
    local = [str(shards / f"0000{number}.tar") for number in range(3)]
    assert expand_urls(str(shards)) == local == expand_urls(f"{shards}/{{00000..00002}}.tar")
    assert expand_urls(f"{shards}/*.tar") == local == expand_urls([local[0], f"{shards}/{{00001,00002}}.tar"])
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(local))
    assert expand_urls(str(listed)) == local
    assert expand_urls(f"file://{shards}/*.tar") == [f"file://{name}" for name in local]
    assert expand_urls("https://host/a{00009..00011}.tar?key=1") == [
        f"https://host/a{number}.tar?key=1" for number in ("00009", "00010", "00011")
    ]
    monkeypatch.chdir(shards)
    assert expand_urls("{00000..00001}.tar") == ["00000.tar", "00001.tar"]
    streamed = ["s3://b/{0..9}.tar", "hf://datasets/a/b", "{0..3}.tar"]
    assert [is_streamed(name) for name in (*streamed, str(shards), "data")] == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    "spec, words",
    [
        ("http://host/{0..3.tar", "braces do not match"),
        ("http://host/*.tar", "servers list no files"),
        ("http://host/folder/", "servers list no files"),
        ("nowhere", "nowhere: cannot be listed"),
        ("sftpx://host/{0..3}/", "sftpx"),
        ("s3://bucket/*.tar", "s3fs"),
        ("gs://bucket/*.tar", "gcsfs"),
        (["http://h/0.tar", "http://h/{0..1}.tar"], "http://h/0.tar: named twice"),
    ],
)
def test_mistakes_in_names(spec, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        expand_urls(spec)
    with pytest.raises(FileNotFoundError, match="no shards there"):
        expand_urls(str(tmp_path))


def test_members_of_other_tools(tmp_path):
    image, long = picture(1), "x" * 120
    members = {
        "./a/000.JPG": image,
        "./a/000.Json": b"{}",
        "./b.c/001.txt": b"text before the image",
        "./b.c/001.jpeg": image,
        f"{long}/002.jpg": image,
        f"{long}/002.txt": "schön".encode(),
        "._003.jpg": b"of macOS",
        "__index__/x.json": b"{}",
        "004.seg.png": image,
        "004.jpg": image,
        "004.JPG": b"another one of that name",
    }
    expected = [
        ("./a/000", {"jpg", "json"}),
        ("./b.c/001", {"jpeg", "txt"}),
        (f"{long}/002", {"jpg", "txt"}),
        ("004", {"seg.png", "jpg"}),
    ]
    kinds = {
        "pax.tar": ("w", {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "global"}}),
        "gnu.tar": ("w", {"format": tarfile.GNU_FORMAT}),
        "z.tar.gz": ("w:gz", {}),
        "z.tgz": ("w:gz", {}),
        "z.tar": ("w:xz", {}),
    }
    for name, (mode, options) in kinds.items():
        samples = list(read_samples(str(write_tar(tmp_path / name, members, mode, **options))))
        shown = [(one["__key__"], {key for key in one if not key.startswith("__")}) for one in samples]
        assert shown == expected and samples[3]["jpg"] == image, name


def test_shards_without_samples_and_in_disorder(tmp_path):
    assert keys_of(write_tar(tmp_path / "empty.tar", {})) == []
    (tmp_path / "zero.tar").touch()
    (tmp_path / "lfs.tar").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 200)
    mixed = {"0.jpg": b"a", "1.jpg": b"b", "0.txt": b"c", "1.txt": b"d"}
    write_tar(tmp_path / "mixed.tar", mixed)
    for name, words in (("zero", "empty"), ("lfs", "git lfs pull"), ("mixed", "sort=name"), ("gone", "gone.tar")):
        with pytest.raises(ShardError, match=rf"{name}.tar: .*{words}"):
            keys_of(tmp_path / f"{name}.tar")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_breaks_off_is_resumed_where_it_did(shards, ranges, monkeypatch):
    monkeypatch.setattr(shard_reader, "BLOCK", 2**14)
    faults, whole = Faults(ranges), keys_of(shards / "00001.tar")
    faults.unavailable["00001.tar"] = 2
    with serve(shards, faults) as url:
        assert keys_of(f"{url}/00001.tar") == whole
        faults.breaks["00001.tar"], faults.requests = 30_000, []
        if ranges:
            assert keys_of(f"{url}/00001.tar") == whole
            starts = [int(wanted[6:-1]) for _, wanted in faults.requests[1:]]
            assert len(starts) >= 2 and starts == sorted(set(starts))
        else:  # what came before is sent again: nothing new ever arrives
            with pytest.raises(ShardError, match=r"00001.tar: .* at byte 3\d,\d+|00001.tar: .* at byte 2\d,\d+"):
                keys_of(f"{url}/00001.tar")


def test_servers_that_refuse_hang_and_send_pages(shards):
    faults = Faults()
    faults.unavailable["00000.tar"], faults.hangs["00001.tar"] = 99, 20_000
    faults.pages.add("00002.tar")
    with serve(shards, faults) as url:
        for name, words in (("00000.tar", "503"), ("00002.tar", "a page of HTML"), ("gone.tar", "gone.tar")):
            with pytest.raises(ShardError, match=rf"^{url}/{name}: .*{words}"):
                keys_of(f"{url}/{name}")
        assert [name for name, _ in faults.requests].count("00000.tar") == shard_reader.ATTEMPTS
        assert [name for name, _ in faults.requests].count("gone.tar") == 1
        assert keys_of(f"{url}/00001.tar") == keys_of(shards / "00001.tar")  # the rest, after each timeout
    with pytest.raises(ShardError, match=f"^{url}/00001.tar: "):
        keys_of(f"{url}/00001.tar")  # nobody answers any more


def test_numbers_of_samples_are_stated_or_counted_once(shards, tmp_path, capsys, monkeypatch):
    index, urls = tmp_path / "cache" / "shards.json", expand_urls(str(shards))
    assert count_samples(urls, index) == ([20, 21, 22], {}) and not index.exists()
    bare = write_shards(tmp_path / "bare", shards=3, stats=False)
    (bare / "00001.tar").write_bytes(b"no tar" * 200)
    urls = expand_urls(str(bare))
    counts, skipped = count_samples(urls, index)
    assert counts == [20, 0, 22] and list(skipped) == [urls[1]] and "read once to count" in capsys.readouterr().out
    with serve(bare, Faults()) as url:
        remote = [f"{url}/0000{number}.tar" for number in (0, 2)]
        assert count_samples(remote, index, quiet=True)[0] == [20, 22]
        with monkeypatch.context() as patch:
            patch.setattr("common.streaming.counts._count", None)  # no shard is read again
            assert count_samples(remote, index, quiet=True)[0] == [20, 22]
        write_tar(bare / "00000.tar", sample_members("0", 0))
        assert count_samples(remote, index, quiet=True)[0] == [1, 22]
        (bare / "sizes.json").write_text(json.dumps({"00000.tar": 7, "00002.tar": 8}))
        assert count_samples(remote, index, quiet=True)[0] == [7, 8]
    assert count_samples(urls, index, quiet=True)[0] == [7, 0, 8]
