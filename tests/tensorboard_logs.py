"""What TensorBoard shows of a run, for a test of each system."""

import re
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_events(logs: Path, system: str) -> EventAccumulator:
    """The events of the only run below `logs`, whose name and settings are checked."""
    (folder,) = logs.iterdir()
    assert re.fullmatch(rf"{system}-.+-\d{{8}}", folder.name) and len(list(logs.rglob("events.out*"))) == 1
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0}).Reload()
    assert "train/loss" in events.Tags()["scalars"]
    (text,) = events.Tensors("settings/text_summary")
    assert "learning_rate" in text.tensor_proto.string_val[0].decode()
    assert set(events.PluginTagToContent("hparams")) == {"_hparams_/experiment", "_hparams_/session_start_info"}
    return events
