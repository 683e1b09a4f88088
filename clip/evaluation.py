"""evaluate.py under the name of the training guide."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("evaluate.py")), run_name="__main__")
