"""examples/: they run, and do what they show."""

import json
import shutil
import threading
from http.server import HTTPServer
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from conftest import ROOT, flags
from PIL import Image

from clip.model import CLIPModel
from common.samples.layouts import create_sample_dataset
from examples import at_work, clip_finetune, few_shot_style, retrieval_service, style_search, style_vlm
from retrieval import build_index
from retrieval.search import open_index


def test_a_language_model_reads_styles_from_the_style_vector(trained, capsys):
    weights, data = trained
    run = flags(data_dir=data, style_encoder=weights, steps=50)
    scores = style_vlm.main(run)
    assert scores.keys() == {"which style", "yes or no"} and scores["which style"] > 0.5  # of three styles
    shown = capsys.readouterr().out
    assert "In which style is this drawn? style_" in shown and "right answers on 6 held-out images: which" in shown
    style_vlm.main([*flags(data_dir=data, style_encoder=weights, steps=1), "--test_dir", str(data)])
    assert "right answers on 24 held-out images" in capsys.readouterr().out


def test_a_folder_is_sorted_by_style(trained, tmp_path):
    weights, data = trained
    paths = sorted(data.glob("style_*/*.png"))
    (tmp_path / "mixed").mkdir()
    for path in paths:
        shutil.copy(path, tmp_path / "mixed" / f"{path.parent.name}_{path.name}")
    run = [weights, str(tmp_path / "mixed"), "--sheet", str(tmp_path / "out" / "styles.png")]
    found = style_search.main(run)
    assert sum(map(len, found.values())) == len(paths) and len(found) > 1
    assert (tmp_path / "out" / "styles.png").is_file()
    (alike,) = style_search.main([*run, "--like", str(paths[0])]).values()
    assert alike[0].name == f"{paths[0].parent.name}_{paths[0].name}"


def test_new_styles_from_a_few_pictures(trained, capsys):
    weights, data = trained
    pictures = [str(sorted((data / f"style_{style}").glob("*.png"))[0]) for style in range(3)]
    assert few_shot_style.main([weights, str(data), *pictures]) == ["style_0", "style_1", "style_2"]
    assert "3 styles; their own pictures" in capsys.readouterr().out


def test_a_loop_of_ones_own_fine_tunes_a_clip(tiny_clip, tmp_path, capsys):
    create_sample_dataset(tmp_path / "data", 40, layout="captions", size=48)
    clip_finetune.main([str(tmp_path / "data"), str(tiny_clip), *flags(rate=1e-3, epochs=6, output=tmp_path / "tuned")])
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert losses[-1] < losses[0] and CLIPModel.from_pretrained(tmp_path / "tuned")


def test_an_index_as_a_service(tiny_clip, tmp_path):
    create_sample_dataset(tmp_path / "data", 8, layout="captions", size=48)
    images = tmp_path / "data" / "images"
    build_index.main(flags(index_dir=tmp_path / "index", image_dir=images, vit_checkpoint=tiny_clip))
    retrieval_service.Handler.searcher = open_index(str(tmp_path / "index"))
    server = HTTPServer(("127.0.0.1", 0), retrieval_service.Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    try:
        by_text = json.load(urlopen(f"{address}?text=a+red+house&k=3"))
        assert len(by_text) == 3 and by_text[0]["similarity"] >= by_text[2]["similarity"]
        query = sorted(images.glob("*.png"))[5]
        assert json.load(urlopen(address, query.read_bytes()))[0]["image"].endswith(query.name)
        for bad in (None, b"no image"):
            with pytest.raises(HTTPError, match="400"):
                urlopen(address, bad)
    finally:
        server.shutdown()
        server.server_close()


def test_the_picture_of_the_readme(trained, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(at_work, "STYLE_ENCODER", trained[0])
    monkeypatch.setattr(at_work, "CLIP", tiny_clip)
    monkeypatch.setattr(at_work, "SCENES", 8)
    at_work.main(flags(output=tmp_path / "a.png", folder=tmp_path / "data"))
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width >= at_work.SHOWN * 160 and len(sheet.convert("RGB").getcolors(2**24)) > 1000


def test_examples_are_short():
    lines = {path.name: path.read_text("utf-8").count("\n") for path in (ROOT / "examples").glob("*.py")}
    assert lines.pop("style_vlm.py") <= 150 and max(lines.values()) < 60, lines
