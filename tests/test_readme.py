"""The commands of README and guides as a reader types them, and the two languages side by side."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from clip import config as clip_config
from clip.checkpoint import load_clip, save_clip
from common.cli.settings import read_settings
from common.cli.tool_parser import make_parser
from common.samples.layouts import create_sample_dataset

GUIDES = ("style_encoder", "clip", "vitp", "retrieval", "blip2_gated", "llava", "app", "export", "scaling")
PAGES = {"README.md": [f"docs/{guide}.md" for guide in GUIDES], "README.zh-CN.md": ["docs/guide.zh-CN.md"]}
TEXT = {page: (ROOT / page).read_text("utf-8") for readme, guides in PAGES.items() for page in (readme, *guides)}


def blocks(name, language):
    """Blocks of code of a README and its guides."""
    text = "\n".join(TEXT[page].replace("   ```", "```") for page in (name, *PAGES[name]))
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(name, script):
    """Each once."""
    lines = "\n".join(blocks(name, "bash")).replace("\\\n", " ").splitlines()
    found = [" ".join(line.split("#")[0].split()) for line in lines]
    return list(dict.fromkeys(line for line in found if line.startswith(f"python {script}")))


@pytest.fixture
def clip_workplace(tiny_clip, tmp_path, monkeypatch):
    """A folder as the README's reader of CLIP has it: data/ of the AniPersonaCaps kind, model-checkpoint/."""
    model, _ = load_clip(tiny_clip)
    (tmp_path / "model-checkpoint").mkdir()
    facts = {"settings": vars(read_settings(clip_config, ["--demo", "--val_split", "0.3"]))}
    save_clip(tmp_path / "model-checkpoint" / "best_model.pth", model, **facts)
    create_sample_dataset(tmp_path / "data", 12, layout="persona", size=48)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PAGES)
def test_clip_runs_as_typed(clip_workplace, name):
    ran = []
    for script in ("optimized_metadata", "evaluate", "inference"):
        for command in commands(name, f"clip/{script}.py"):
            importlib.import_module(f"clip.{script}").main(shlex.split(command)[2:])
            ran.append(script)
    assert ran == ["optimized_metadata", "evaluate", "inference", "inference"]
    assert len(list((clip_workplace / "heatmaps").glob("*.png"))) >= 12
    for command in commands(name, "clip/train.py"):
        read_settings(clip_config, shlex.split(command)[2:])
    scope = {}
    exec(blocks(name, "python")[2], scope)
    assert scope["vectors"].shape == (2, 16) and scope["scratch"].image_size == 64


@pytest.fixture
def workplace(trained, tmp_path, monkeypatch):
    """A folder as the README's reader has it: checkpoints/best.pth, a.png, b.png, two folders of images, data/."""
    weights, data = trained
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(weights, tmp_path / "checkpoints" / "best.pth")
    shutil.copy(weights, tmp_path / "checkpoints" / "model_epoch_50.pth")
    shutil.copytree(data, tmp_path / "data")
    for name, style in (("folder", 0), ("folder_a", 1), ("folder_b", 2)):
        shutil.copytree(data / f"style_{style}", tmp_path / name)
    for name in ("a.png", "b.png"):
        shutil.copy(data / "style_0" / "item0_img.png", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PAGES)
def test_tools_run_as_typed(workplace, name):
    ran = 0
    for script in ("style_comparator", "inspect_image", "evaluate_style"):
        for command in commands(name, f"{script}.py"):
            importlib.import_module(script).main(shlex.split(re.sub(r"[][]", "", command))[2:])
            ran += 1
    assert ran == 6 and (workplace / "maps.png").is_file() and (workplace / "matrix.png").is_file()


@pytest.mark.parametrize("name", PAGES)
def test_training_flags_exist(name):
    import config
    import prepare_targets

    found = commands(name, "train.py")
    assert len(found) >= 2
    for command in found:
        read_settings(config, shlex.split(command)[2:])
    for command in commands(name, "prepare_targets.py"):
        make_parser(prepare_targets.main.__wrapped__).parse_args(shlex.split(command)[2:])


@pytest.mark.parametrize("name", PAGES)
def test_python_snippets_run(workplace, name):
    loading, joining, *_ = blocks(name, "python")
    scope = {}
    exec(loading, scope)
    assert scope["output"].embed.shape == (1, 5, 12) and scope["output"].mask.shape == (1, 5)
    scope = {"vision_embed": torch.randn(2, 3, 8), "llm_projector": torch.nn.Linear(8, 4)}
    exec(joining, scope)
    assert scope["vision_mask"].shape == (2, 3)


@pytest.mark.parametrize("folder", ["vitp", "retrieval", "blip2_gated", "llava"])
def test_flags_of_the_other_systems_exist(folder, capsys):
    """Every script that is named is there, and every flag is in its --help."""
    found = commands("README.md", f"{folder}/")
    assert len(found) >= 4
    for command in found:
        _, script, *words = shlex.split(command)
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        with pytest.raises(SystemExit):
            module.main(["--help"])
        described = capsys.readouterr().out
        missing = [word for word in words if word.startswith("--") and word not in described]
        assert not missing, f"{script}: {missing}"


@pytest.mark.parametrize("script", ["app", "tools.export_style", "tools.push_to_hub", "tools.export_clip"])
def test_flags_of_tools_for_models_exist(script, capsys):
    found = commands("README.md", f"{script.replace('.', '/')}.py")
    assert found
    with pytest.raises(SystemExit):
        importlib.import_module(script).main(["--help"])
    described = capsys.readouterr().out
    assert not [word for one in found for word in shlex.split(one) if word.startswith("--") and word not in described]


def test_both_languages_say_the_same():
    def code(name):
        lines = [line.split("#")[0].rstrip() for block in blocks(name, "bash") for line in block.splitlines()]
        return {re.sub("^或：", "", line) for line in lines if line}

    def numbers(name):
        return re.findall(r"\d[\d,.]*\d", re.sub(r"```.*?```", "", TEXT[name], flags=re.DOTALL))

    english, chinese = PAGES
    assert code(chinese) - code(english) == set()
    assert sorted(numbers(english)) == sorted(numbers(chinese))
    headings = [[line.count("#") for line in TEXT[name].splitlines() if re.match("#+ ", line)] for name in PAGES]
    assert headings[0] == headings[1]


def test_the_readme_is_short():
    assert all(TEXT[name].count("\n") <= 200 for name in PAGES)


@pytest.mark.parametrize("page", [*PAGES, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_picture_has_its_command(page):
    """In the document's code, by the picture's name; or the paragraph below names a script or a target of make."""
    text = (ROOT / page).read_text("utf-8")
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for picture, below in re.findall(r"!\[[^]]*\]\(([^)h][^)]*\.png)\)\n+((?:.+\n)*)", text):
        code = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        scripts = re.findall(r"`(?:python )?([\w/]+\.py)\b", below)
        assert (
            any(Path(picture).name in block for block in code)
            or any((ROOT / script).is_file() for script in scripts)
            or any(target in targets for target in re.findall(r"`make ([\w-]+)`", below))
        ), f"{page}: no command for {picture}"


def test_every_file_that_is_named_is_there():
    for page, text in TEXT.items():
        for target in re.findall(r"\]\(([^)h#][^)]*)\)", text):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"
