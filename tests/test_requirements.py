"""requirements*.txt and the lock that make installs."""

from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def read(path):
    lines = [line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def test_the_lock_holds_a_release_of_each_range():
    locked = {canonicalize_name(one.name): str(one.specifier) for one in read(ROOT / "requirements.lock")}
    assert all(specifier.startswith("==") for specifier in locked.values())
    files = sorted(ROOT.glob("requirements*.txt"))
    assert len(files) == 5
    for wanted in (one for path in files for one in read(path)):
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)].removeprefix("==")), wanted
