"""Run a script that tells where it is: at SIGUSR1 the names of the functions it is in go into a file, innermost first.

python tests/tell_where.py FILE SCRIPT [its arguments]
"""

import faulthandler
import runpy
import sys
from pathlib import Path
from signal import SIGUSR1

sys.path[0] = str(Path(__file__).resolve().parents[1])
faulthandler.register(SIGUSR1, Path(sys.argv[1]).open("w"), all_threads=False)
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
