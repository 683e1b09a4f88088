"""Does a run outlive what happens to runs? Every fault is done to a training run for real, and the weights at the end
must be, bit for bit, those of a run that was left in peace.

    python benchmarks/faults.py --systems style clip blip2 vitp llava [--kills 20] [--folder ./.cache/faults]

One run of each system's tiny model, as the tests train it, goes through everything in turn, resuming after each:
  SIGKILL            at random moments: in a step, in a save, in validation
  damaged state      a bit flipped, the end cut off, a file deleted in the newest state: the one before is taken
  disk full          a limit on the size of files, below that of the state: writes fail where they stand
  read-only folder   chattr +i on the run's folder, which binds root too
  reader killed      SIGKILL for the process that reads data
  second run         a run started into the folder of one that is running
Prints a Markdown table. Processes are slow to start: a fault takes as long as an import of torch.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
from signal import SIGKILL, SIGSTOP

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import flip_a_bit, kill_after_a_step, start_script  # noqa: E402
from fault_runs import SYSTEMS, TinyRun  # noqa: E402

from common.state import what_is_wrong  # noqa: E402

DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit flipped": flip_a_bit,
    "the end cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a file deleted": Path.unlink,
}


@dataclass
class Row:
    fault: str
    tried: int = 0
    fine: int = 0
    seen: list[str] = field(default_factory=list)  # what the run said

    def add(self, fine: bool, said: str = "") -> None:
        self.tried, self.fine = self.tried + 1, self.fine + fine
        if said and said not in self.seen:
            self.seen.append(said)


def main(argv: list[str]) -> list[str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of each system")
    parser.add_argument("--folder", default="./.cache/faults", help="for the runs; emptied first")
    args = parser.parse_args(argv)
    lines = ["| system | fault | tried | as it should be | what the run said |", "|---|---|---|---|---|"]
    for system in args.systems:
        folder = Path(args.folder).resolve() / system
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for row in examine(SYSTEMS[system](folder, args.kills + 8), args.kills):
            said = "; ".join(row.seen).replace(str(folder), "...").replace("|", "/")
            lines.append(f"| {system} | {row.fault} | {row.tried} | {row.fine} | {said} |")
            print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))
    return lines


def examine(run: TinyRun, kills: int) -> list[Row]:
    """Every fault in turn, then the end of the run and its weights beside those of an undisturbed one."""
    rows = [Row("SIGKILL")]
    for number in range(kills):
        struck = kill_after_a_step(run.script, run.arguments(resume=number > 0), run.written)
        rows[0].add(struck, "" if struck else "the run was over before: give it more steps")
    rows += [damaged_state(run), full_disk(run), read_only(run), reader_killed(run), second_run(run)]
    code, error = finish(start_script(run.script, run.arguments(resume=True)))
    weights = Row("weights at the end are equal, bit for bit")
    calm = run.in_peace()
    code_of_calm, _ = finish(start_script(calm.script, calm.arguments(resume=False)))
    weights.add(code == code_of_calm == 0 and run.weights() == calm.weights(), last_line(error) if code else "")
    return [*rows, weights]


def damaged_state(run: TinyRun) -> Row:
    """The next start must name the damage; it goes on from the state before, and is killed again after a step."""
    row = Row("damaged state")
    for name, damage in DAMAGE.items():
        newest = run.newest_state()
        damage(max(newest.glob("*"), key=lambda path: path.stat().st_size * path.is_file()))
        noted = newest.with_name("noted.txt")
        with noted.open("w") as file:
            # Three steps: the state before must be there again for the next damage.
            kill_after_a_step(run.script, run.arguments(resume=True), run.written, steps=3, stderr=file)
        said = [line for line in noted.read_text().splitlines() if "kept as" in line or "left out: /" in line]
        row.add(bool(said), f"{name}: {last_words(said[0])}" if said else f"{name}: nothing")
    return row


def full_disk(run: TinyRun) -> Row:
    """A limit below the largest file of the state; Python turns it into an error like that of a full disk."""
    row, state = Row("disk full"), run.newest_state()
    limit = max(path.stat().st_size for path in state.glob("*")) - 1
    process = start_script(
        run.script, run.arguments(resume=True), preexec_fn=partial(setrlimit, RLIMIT_FSIZE, (limit, limit))
    )
    row.add(*one_line_and_whole(run, process))
    return row


def read_only(run: TinyRun) -> Row:
    row = Row("read-only folder")
    if subprocess.run(["chattr", "+i", str(run.folder)], capture_output=True).returncode:
        return Row("read-only folder (chattr +i is not to be had here)")
    try:
        row.add(*one_line_and_whole(run, start_script(run.script, run.arguments(resume=True))))
    finally:
        subprocess.run(["chattr", "-i", str(run.folder)], check=True)
    return row


def reader_killed(run: TinyRun) -> Row:
    row, before = Row("reader killed"), run.written()
    process = start_script(run.script, run.arguments(resume=True, readers=1))
    while run.written() <= before and process.poll() is None:
        time.sleep(0.005)
    name = "pt_data_worker"  # as torch calls them
    found = subprocess.run(["pgrep", "-P", str(process.pid), name], capture_output=True, text=True).stdout.split()
    for reader in found:
        os.kill(int(reader), SIGKILL)
    fine, said = one_line_and_whole(run, process)
    row.add(bool(found) and fine, said if found else "no reader was found")
    return row


def second_run(run: TinyRun) -> Row:
    row, before = Row("second run in the folder"), run.written()
    first = start_script(run.script, run.arguments(resume=True))
    while run.written() <= before and first.poll() is None:
        time.sleep(0.005)
    first.send_signal(SIGSTOP)  # it stays in the folder for as long as the second needs
    row.add(*one_line_and_whole(run, start_script(run.script, run.arguments(resume=True))))
    first.kill()
    first.communicate()
    return row


def one_line_and_whole(run: TinyRun, process: subprocess.Popen) -> tuple[bool, str]:
    """-> whether it ended with one line of explanation and left a state that is whole; the line."""
    code, error = finish(process)
    line = last_line(error)
    whole = not what_is_wrong(run.newest_state(), run.needed)
    return code == 1 and ": error: " in line and "Traceback" not in error and whole, last_words(line)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, error = process.communicate()
    return process.returncode, error


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""


def last_words(line: str, length: int = 140) -> str:
    line = line.partition(": error: ")[2] or line
    return line if len(line) <= length else line[:length] + " ..."


if __name__ == "__main__":
    main(sys.argv[1:])
