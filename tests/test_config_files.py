"""An edit of any line of any config file takes effect."""

import importlib.util
import itertools
import re
import sys
import typing
from dataclasses import fields

import pytest
from conftest import ROOT

from common.cli.config_files import constants, sections
from common.cli.settings import read_settings
from common.training.schedule import TrainSchedule
from llava.scoring_config import ScoringConfig

NUMBERS = itertools.count()


def load(path):
    """The module of a file that was just written, under a name of its own."""
    name = f"edited_config_{next(NUMBERS)}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def copy(system, folder):
    """config.py and what lies beside it, as shipped."""
    source = ROOT / system
    for file in (*source.glob("config.*"), *(source / "configs").glob("*.yaml")):
        target = folder / file.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        target.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    return folder / "config.py"


def another(kind, value):
    """A value of this type that differs from `value`."""
    if typing.get_origin(kind) is typing.Literal:
        return next(choice for choice in typing.get_args(kind) if choice != value)
    if kind is bool:
        return not value
    if "str" in str(kind):
        return ["other"] if "list" in str(kind) else "other"
    if "float" in str(kind) or issubclass(kind, float):
        return value / 2 or 0.5
    return max(value + 1, 1)


def edit(path, line, new):
    """The file with another line `line`; the first is 1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line - 1] = new
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def line_of(setting):
    return int(setting.place.rpartition(" ")[2])


@pytest.mark.parametrize("system", [".", "clip", "llava"])
def test_each_constant_edited_without_its_type_arrives(system, tmp_path):
    path = copy(system, tmp_path)
    shipped = path.read_text(encoding="utf-8")
    settings = constants(load(path))
    assert {setting.name for setting in settings.values()} == set(load(path).TYPES)
    for flag, setting in settings.items():
        value = another(setting.type, setting.value)
        edit(path, line_of(setting), f"{setting.name} = {value!r}")
        assert getattr(read_settings(load(path), []), flag) == value
        path.write_text(shipped, encoding="utf-8")


def test_each_value_of_the_yaml_file_arrives(tmp_path):
    path = copy("blip2_gated", tmp_path)
    module, default = load(path), tmp_path / "configs" / "default.yaml"
    shipped = default.read_text(encoding="utf-8")
    for flag, setting in sections(module.TYPES, default).items():
        value = another(setting.type, setting.value)
        written = {True: "true", False: "false"}[value] if isinstance(value, bool) else value
        key = " " * 2 * flag.count(".") + flag.rpartition(".")[2]
        edit(default, line_of(setting), f"{key}: {written}")
        assert getattr(read_settings(module, []), flag.replace(".", "_")) == value
        default.write_text(shipped, encoding="utf-8")


@pytest.mark.parametrize("system, argv", [("llava", ["--data", "x"]), ("vitp", [])])
def test_the_fields_of_the_training_by_trainer_arrive(system, argv, tmp_path):
    path = copy(system, tmp_path)
    module, source = load(path), path.read_text(encoding="utf-8")
    edited = {}
    for group in (item for item in vars(module).values() if hasattr(item, "__dataclass_fields__")):
        types = typing.get_type_hints(group)
        for field in (field for field in fields(group) if field.name not in ("demo", "data", "report_to")):
            kind = next((kind for kind in typing.get_args(types[field.name]) if kind is not type(None)), None)
            kind = types[field.name] if kind is None or isinstance(kind, str) else kind
            edited[field.name] = another(kind, field.default or kind())
            line = rf"(?m)^    {field.name}: (.+?) = .*$"
            source, count = re.subn(line, rf"    {field.name}: \1 = {edited[field.name]!r}", source)
            assert count, field.name
    path.write_text(source, encoding="utf-8")
    values = load(path).read_values(argv)
    assert {name: values[name] for name in edited} == edited
    name = next(iter(edited))
    path.write_text(re.sub(rf"(?m)^    {name}: .+?( = .*)$", rf"    {name}\1", source), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"config.py, line \d+: {name}"):
        load(path).read_values(argv)


def test_the_scoring_of_llava_is_what_its_config_says(tmp_path):
    path = copy("llava", tmp_path)
    defaults = ScoringConfig.from_settings(read_settings(load(path), []))
    assert {item.name for item in fields(ScoringConfig) if item.default == getattr(defaults, item.name)} == {
        item.name for item in fields(ScoringConfig) if item.name != "prompts"
    }
    for name in ("top_p", "max_attempts", "seed"):
        path = copy("llava", tmp_path)
        setting = constants(load(path))[name]
        edit(path, line_of(setting), f"{setting.name} = {another(setting.type, setting.value)}")
        changed = ScoringConfig.from_settings(read_settings(load(path), []))
        assert getattr(changed, name) != getattr(defaults, name)


@pytest.mark.parametrize(
    "line, message",
    [
        ("EPOCHS = 1.5", "EPOCHS: '1.5', expected INT>0"),
        ("EPOCHS = None", "EPOCHS: 'None', expected INT>0"),
        ("IGNORE_TARGETS = 'pooled'", "IGNORE_TARGETS: 'pooled', expected TEXT ..."),
        ("NUM_EPOCHS = 1", "unknown setting 'NUM_EPOCHS'; did you mean EPOCHS?"),
        ("BATCHSIZE = 8", "unknown setting 'BATCHSIZE'; did you mean BATCH_SIZE?"),
        ("batch_size = 8", "unknown setting 'batch_size'; did you mean BATCH_SIZE?"),
        ("LR = 0.1", "unknown setting 'LR'; did you mean LEARNING_RATE?"),
    ],
)
def test_a_mistake_in_config_py_is_one_line_with_its_place(line, message, tmp_path):
    path = copy(".", tmp_path)
    number = len(path.read_text(encoding="utf-8").splitlines()) + 1
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError) as raised:
        read_settings(load(path), [])
    assert str(raised.value) == f"config.py, line {number}: {message}"


def test_lines_that_documents_print(tmp_path):
    path = copy(".", tmp_path)
    with path.open("a", encoding="utf-8") as file:
        file.write("from pathlib import Path\nIGNORE_TARGETS = ['pooled', 'mask']\nLEARNING_RATE = 1\n")
        file.write("EPOCHS, BATCH_SIZE = 1, 8\nDATA_DIR = Path('data')\nPATIENCE: int = 3\nMY_OWN: float = 0.5\n")
    settings = read_settings(load(path), [])
    assert settings.ignore_targets == ["pooled", "mask"] and (settings.epochs, settings.batch_size) == (1, 8)
    assert (settings.learning_rate, settings.data_dir, settings.patience) == (1.0, "data", 3)
    assert read_settings(load(path), ["--my_own", "2"]).my_own == 2.0


def test_a_line_that_is_gone_is_named(tmp_path):
    path = copy(".", tmp_path)
    path.write_text(re.sub(r"(?m)^SEED = .*\n", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match="config.py: no value for SEED"):
        read_settings(load(path), [])


@pytest.mark.parametrize("system", ["clip", "llava"])
def test_the_file_beside_it_says_that_it_wins(system, tmp_path, capsys):
    path = copy(system, tmp_path)
    edit(path, line_of(constants(load(path))["batch_size"]), "BATCH_SIZE = 7")
    assert read_settings(load(path), []).batch_size == 7 and capsys.readouterr().err == ""
    (tmp_path / "config.json").write_text('{"training": {"bs": 5}}')
    assert read_settings(load(path), []).batch_size == 5
    assert capsys.readouterr().err == "settings: config.json over config.py: batch_size\n"


@pytest.mark.parametrize("system", [".", "clip", "blip2_gated", "llava"])
def test_every_setting_is_used(system):
    """A setting that nothing reads would take no effect."""
    names = vars(read_settings(load(ROOT / system / "config.py"), []))
    files = [path for path in (ROOT / system).glob("*.py") if path.name != "config.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    by_pattern = [re.sub(r"\{.*?\}", r"\\w+", text) for text in re.findall(r'getattr\(\w+, f"(.+?)"\)', code)]
    by_pattern += [rf"\w+{suffix}" for suffix in re.findall(r'if name\.endswith\("(_\w+)"\)', code)]
    wholes = {"llava": [ScoringConfig], ".": [TrainSchedule]}.get(system, [])
    by_name = {"demo", *(item.name for kind in wholes for item in fields(kind))}  # taken all at once
    unused = {name for name in names if not re.search(rf"\.{name}\b", code)} - by_name
    assert {name for name in unused if not any(re.fullmatch(text, name) for text in by_pattern)} == set()
