"""evaluate.py under its short name."""

import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import run_script
from llava.evaluate import main

if __name__ == "__main__":
    run_script(main)
