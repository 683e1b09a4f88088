"""What several test files need: small drawn style folders, and the real images where the machine has them."""

import os

# One thread: a worker of pytest -n has a core of its own, and sums over several threads are rounded otherwise.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image, ImageDraw
from torch import nn

from common.images.io import list_images
from common.samples.layouts import create_sample_dataset

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)


def flags(prefix: str = "", /, **settings) -> list[str]:
    """flags("training.", epochs=2, resume=True) -> ["--training.epochs", "2", "--training.resume"]

    A list is several words; False is the word "false"; None leaves the flag away.
    """
    words: list[str] = []
    for name, value in settings.items():
        if value is None:
            continue
        values = [] if value is True else value if isinstance(value, list | tuple) else [value]
        words += [f"--{prefix}{name}", *("false" if item is False else str(item) for item in values)]
    return words


TINY_MODEL = flags(model_name="test_vit", pretrained=False, image_size=32, style_width=16)
TINY_RUN = TINY_MODEL + flags(
    epochs=2, batch_size=8, images_per_style=2, val_split=0.3, warmup_steps=2, log_steps=1, device="cpu", drawn_styles=2
)


class Normalised(nn.Module):
    """(B, 5) -> a loss. Batch normalisation keeps running means, which a forward pass in training changes."""

    WIDTH = 5

    def __init__(self, infinite_gradient: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.line = nn.BatchNorm1d(self.WIDTH), nn.Linear(self.WIDTH, 1)
        self.infinite_gradient = infinite_gradient

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.infinite_gradient and rows.isnan().any():  # a finite loss: the slope of a square root at 0
            return (self.line(self.norm(rows.nan_to_num())) * 0).sum().sqrt()
        return self.line(self.norm(rows)).square().mean()


@pytest.fixture
def real_data() -> Path:
    """A folder of real images (REAL_DATA_DIR); tests that want it are skipped without."""
    folder = os.environ.get("REAL_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("REAL_DATA_DIR names no folder of real images")
    return Path(folder).resolve()  # tests link to its images


def draw_styles(folder: Path, styles: int = 3, images: int = 8, size: int = 40, targets: bool = True) -> Path:
    """<folder>/style_<n>/item<k>_img.png: the same shapes in every style, told apart by line width and ground."""
    for style in range(styles):
        target = folder / f"style_{style}"
        target.mkdir(parents=True)
        for item in range(images):
            random = np.random.default_rng(item)
            picture = Image.new("RGB", (size + 4 * style, size), ["white", "khaki", "lightblue", "plum"][style % 4])
            draw = ImageDraw.Draw(picture)
            for _ in range(3):
                x, y, w, h = random.integers(0, size // 2, 4)
                draw.ellipse([int(x), int(y), int(x + w + 4), int(y + h + 4)], outline="black", width=1 + style)
            picture.save(target / f"item{item}_img.png")
            if targets:
                generator = torch.Generator().manual_seed(style)
                length = 3 + style
                torch.save(torch.randn(length, 12, generator=generator), target / f"item{item}_embed.pt")
                torch.save(torch.randn(10, generator=generator), target / f"item{item}_pooled.pt")
                torch.save(torch.ones(length, dtype=torch.int64), target / f"item{item}_mask.pt")
    return folder


def interrupt_after(patch, epoch):
    """Runs are interrupted at the end of this epoch, when its model files are written."""
    from common.training.trainer import Trainer

    print_epoch = Trainer.print_epoch

    def interrupt(trainer, *arguments):
        print_epoch(trainer, *arguments)
        if trainer.progress.epoch == epoch:
            raise KeyboardInterrupt

    patch.setattr(Trainer, "print_epoch", interrupt)


@pytest.fixture
def second_step_is_bad(monkeypatch):
    """Every run's second optimizer step has a loss that is not finite."""
    from common.training.nonfinite import NonFiniteGuard

    real, losses = NonFiniteGuard.check, []

    def check(guard, step, loss, *others):
        losses.append(loss)
        return real(guard, step, loss * float("nan") if len(losses) == 2 else loss, *others)

    monkeypatch.setattr(NonFiniteGuard, "check", check)


@pytest.fixture
def new_accelerate():
    """accelerate keeps one precision for the life of a process: forget it before and after."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def flip_a_bit(path: Path) -> None:
    """As a bad disk or a bad copy does it: the size stays, the middle changes."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def style_data(tmp_path) -> Path:
    return draw_styles(tmp_path / "data")


def run_folders(data: Path, folder: Path) -> list[str]:
    """Flags of a style encoder's run: its data, and its folders below `folder`."""
    return flags(
        data_dir=data, checkpoint_dir=folder / "checkpoints", log_dir=folder / "logs", cache_dir=folder / "cache"
    )


def blank_figure(figure, path) -> None:
    Image.new("RGB", (1, 1)).save(path)


@pytest.fixture
def blank_curves(monkeypatch) -> None:
    """Training curves are laid out, but drawn as one pixel: drawing them takes longer than a tiny epoch."""
    monkeypatch.setattr("common.training.plots.save_figure", blank_figure)


@pytest.fixture
def run_arguments(style_data, tmp_path, blank_curves) -> list[str]:
    """Flags for a training run of seconds, all its folders below tmp_path."""
    return TINY_RUN + run_folders(style_data, tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[str, Path]:
    """A run of seconds: the weights file and the data folder."""
    import train

    folder = tmp_path_factory.mktemp("trained")
    data = draw_styles(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.training.plots.save_figure", blank_figure)
        train.main(TINY_RUN + run_folders(data, folder) + flags(epochs=4, learning_rate=3e-3))
    return str(folder / "checkpoints" / "best.pth"), data


# The tiny models of each system are imported where they are made: a test of one system does not load the others.


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    from tiny.clip import write_clip

    return write_clip(tmp_path_factory.mktemp("tiny_clip"))


@pytest.fixture
def clip_arguments(tmp_path, tiny_clip, blank_curves) -> list[str]:
    from tiny.clip import clip_flags

    create_sample_dataset(tmp_path / "data", 40, layout="captions", size=48)
    return clip_flags(tmp_path / "data", tiny_clip, tmp_path) + flags(batch_size=8, num_epochs=2, val_split=0.25)


@pytest.fixture(scope="session")
def vqa_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vqa")
    create_sample_dataset(folder, 16, layout="vqa", size=40)
    return folder


@pytest.fixture(scope="session")
def tiny_blip2(tmp_path_factory, vqa_data) -> Path:
    from tiny.blip2 import write_blip2

    return write_blip2(tmp_path_factory.mktemp("tiny_blip2"), vqa_data)


@pytest.fixture
def blip2_arguments(tmp_path, vqa_data, tiny_blip2, blank_curves) -> list[str]:
    from tiny.blip2 import blip2_flags

    folders = {"checkpoint_dir": tmp_path / "checkpoints", "log_dir": tmp_path / "logs"}
    length = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-3, "eval_samples": 4}
    return [*blip2_flags(vqa_data, tiny_blip2, tmp_path / "cache"), *flags("training.", **length, **folders)]


@pytest.fixture(scope="session")
def vitp_parts(tmp_path_factory) -> Path:
    from tiny.vitp import write_vitp

    return write_vitp(tmp_path_factory.mktemp("vitp"))


@pytest.fixture(scope="session")
def llava_folders(tmp_path_factory) -> dict[str, Path]:
    from tiny.llava import WRITERS

    folder = tmp_path_factory.mktemp("llava")
    return {name: write(folder / name) for name, write in WRITERS.items()}


@pytest.fixture
def llava_arguments(llava_folders, tmp_path) -> list[str]:
    from tiny.llava import llava_flags, write_conversations

    data = write_conversations(tmp_path / "data")
    return llava_flags(llava_folders["llava"], data, tmp_path / "run") + flags(max_steps=4, learning_rate=0.01)


@pytest.fixture(scope="session")
def page_weights(tmp_path_factory, trained, tiny_clip) -> dict[str, str]:
    from tiny.page import write_page_files

    return write_page_files(tmp_path_factory.mktemp("app"), trained[0], tiny_clip)


@pytest.fixture(scope="session")
def page_models(page_weights):
    from webpage.models import Models

    return Models(**page_weights, device="cpu")


@pytest.fixture(scope="session")
def page_pictures(page_weights) -> list[str]:
    """Two files of different styles."""
    return [str(list_images(f"{page_weights['folder']}/style_{style}")[-1]) for style in (0, 2)]


@pytest.fixture(scope="session")
def small_page(page_weights):
    """The page with CLIP and search, 1 MB an upload, 40 MB of all."""
    import app

    flags = ["--clip", page_weights["clip"], "--folder", page_weights["folder"], "--device", "cpu", "--port", "0"]
    page = app.open_page([*flags, "--max_upload_mb", "1", "--upload_quota_mb", "40"])
    yield page
    page.close()


@pytest.fixture(scope="session")
def api(small_page):
    import httpx

    with httpx.Client(base_url=f"{small_page.local_url}gradio_api/", timeout=60) as client:
        yield client


@pytest.fixture
def uploads(monkeypatch) -> list[dict]:
    """What push_to_hub.py would send to the Hub."""
    from tiny.hub import StubApi

    monkeypatch.setattr("tools.push_to_hub.HfApi", StubApi)
    monkeypatch.setattr(StubApi, "calls", [])
    return StubApi.calls


@pytest.fixture
def trainers_folder(tiny_clip, tmp_path) -> Path:
    from tiny.hub import write_trainers_folder

    return write_trainers_folder(tmp_path / "work" / "mine", tiny_clip)
