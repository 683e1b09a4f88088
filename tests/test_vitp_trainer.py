"""The parts of the trainer by themselves."""

import json

import pytest

from common.training.resume_state import latest_valid_checkpoint


@pytest.mark.parametrize(
    "state, whole", [('{"global_step": 8}', True), ('{"global_st', False), (None, False), ("{}", False)]
)
def test_newest_whole_checkpoint(tmp_path, state, whole):
    assert latest_valid_checkpoint(tmp_path) is None and latest_valid_checkpoint(tmp_path / "gone") is None
    for number in (2, 10):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(json.dumps({"global_step": number}))
    (tmp_path / "checkpoint-best").mkdir()
    newest = tmp_path / "checkpoint-11"
    newest.mkdir()
    if state is not None:
        (newest / "trainer_state.json").write_text(state)
    assert latest_valid_checkpoint(tmp_path) == (newest if whole else tmp_path / "checkpoint-10")
