"""Fault injection: every fault is applied to a real training run, whose final weights must equal, bit for bit, those
of an undisturbed run.

    python benchmarks/faults.py --systems style clip blip2 vitp llava [--kills 20] [--signals 6] [--folder PATH]

One run of each system's tiny model, as the tests train it, goes through everything in turn, resuming after each:
  SIGKILL            at random moments, of steps, saves and validation too; where they fell is read off the stack
  signals            SIGTERM, SIGUSR1 and SIGINT, then or before the first step: one line and exit code 128 + number
  damaged state      a bit flipped, the end cut off, a file deleted in the newest state: the one before is taken
  disk full          a limit on the size of files, below that of the state; a file system with room for half a state
  read-only folder   chattr +i, which binds root too, on the folder of a run that is under way
  reader killed      SIGKILL for the process that reads data
  second run         a run started into the folder of one that is running
Prints a Markdown table, each row as soon as it is known. Runs to be killed are forked from a process that has imported
torch; all others start from nothing, and take their time for it.
"""

import argparse
import faulthandler
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
from signal import SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2, Signals
from typing import cast

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import flip_a_bit
from fault_runs import SYSTEMS, TinyRun
from processes import kill_after_a_step, start_script

from common.training.resume_state import CHECKSUMS, find_damage

SPAN, PATIENCE = 0.15, 20  # seconds between two looks at a run, at most; until any moment will do
PHASES = {  # the first whose function is on the stack
    "a save": r"trainer_state\.py\", line \d+ in save$|in _save_checkpoint$|in save_(model|encoder|clip|gated)$",
    "validation": r"in (validate|evaluate)$",
    "logs and curves": r"in (log|save_and_plot|plot_curves)$",
    "a step": r"in (_train_epoch|_inner_training_loop)$",
}
WANTED = ("a step", "a save", "validation")
STARTING = "before the first step"
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
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of each system")
    parser.add_argument("--signals", type=int, default=6, help="signals to stop of each system")
    parser.add_argument("--folder", default="./.cache/faults", help="for the runs; emptied first")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # as the runs have it, for those that are forked from here
    lines = ["| system | fault | tried | as it should be | what the run said |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for system in args.systems:
        folder = Path(args.folder).resolve() / system
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run = SYSTEMS[system](folder, args.kills + args.signals + 8)
        import_module(run.script.removesuffix(".py").replace("/", "."))
        for row in examine(run, args.kills, args.signals):
            said = "; ".join(row.seen).replace("|", "/")
            lines.append(f"| {system} | {row.fault} | {row.tried} | {row.fine} | {said} |")
            print(lines[-1], flush=True)
    return lines


def examine(run: TinyRun, kills: int, signals: int) -> Iterator[Row]:
    """Every fault in turn, then the end of the run and its weights compared with those of an undisturbed one."""
    yield kills_at_random(run, kills)
    yield stopped_at_random(run, signals)
    for fault in (damaged_state, full_disk, read_only, reader_killed, second_run):
        yield fault(run)
    code, error = finish(start_script(run.script, run.arguments(resume=True)))
    weights = Row("weights at the end are equal, bit for bit")
    calm = run.in_peace()
    code_of_calm, _ = finish(start_script(calm.script, calm.arguments(resume=False)))
    equal = code == code_of_calm == 0 and run.weights() == calm.weights()
    weights.add(equal, last_words(run, error) if code else "")
    yield weights


def kills_at_random(run: TinyRun, kills: int) -> Row:
    """Each at a random moment, or at a random moment of a phase: left to chance alone, none might meet a validation."""
    row, places, random = Row("SIGKILL"), Counter(), np.random.default_rng()
    for number in range(kills):
        place = kill_somewhere(run, random.choice([*WANTED, ""]), random, resume=number > 0)
        places[place] += 1
        row.add(bool(place))
    row.seen = [
        f"{count} in {place}" if place else f"{count} too late: give the run more steps"
        for place, count in places.most_common()
    ]
    return row


def stopped_at_random(run: TinyRun, signals: int) -> Row:
    """Each must end the run with one line and 128 + its number, and leave a state that is whole."""
    row, random = Row("SIGTERM, SIGUSR1, SIGINT"), np.random.default_rng()
    places: Counter[str] = Counter()
    for number in range(signals):
        signal = (SIGTERM, SIGUSR1, SIGINT)[number % 3]
        wanted = random.choice([*WANTED, STARTING, ""])
        place = kill_somewhere(run, wanted, random, run.written() > 0, signal)
        code, *lines = run.folder.with_name("said.txt").read_text().splitlines()
        said = [line for line in lines if ": stopped by " in line or "Traceback" in line]
        whole = not run.written() or not find_damage(run.newest_state())
        fine = int(code) == 128 + signal and len(said) == 1 and "Traceback" not in said[0] and whole
        row.add(
            fine, "" if fine else f"{Signals(signal).name} in {place}: exit code {code}, {lines[-1:]}, whole: {whole}"
        )
        places[place or "too late"] += 1
    row.seen += [f"{count} in {place}" for place, count in places.most_common()]
    return row


def kill_somewhere(
    run: TinyRun, wanted: str, random: np.random.Generator, resume: bool, signal: Signals = SIGKILL
) -> str:
    """A signal at a random moment after the next step -> what the run was doing then, '' if it was over.

    wanted: what it shall be doing, '' for whatever. It is asked at random moments until that is its answer, and killed
    within a millisecond of it. Its exit code and stderr are then in said.txt.
    """
    stack, before = run.folder.with_name("stack.txt"), run.written()
    stack.touch()
    process = get_context("fork").Process(target=begin, args=(stack, run.script, run.arguments(resume)))
    process.start()
    if wanted == STARTING:
        time.sleep(random.uniform(0.1, 2))  # run_script has been called by then
        end_by(process, signal, stack)
        return wanted
    wait_for_a_step(run, process.is_alive, before)
    place, end = "", time.monotonic() + PATIENCE
    while process.is_alive():
        time.sleep(random.uniform(0, SPAN))
        place = ask(process, stack)
        if place and (place == wanted or not wanted or time.monotonic() > end):
            break
    end_by(process, signal, stack)
    return place


def end_by(process: BaseProcess, signal: Signals, stack: Path) -> None:
    if process.is_alive():
        os.kill(cast(int, process.pid), signal)
    process.join()
    said = stack.with_name("stderr.txt").read_text(errors="replace")
    stack.with_name("said.txt").write_text(f"{process.exitcode}\n{said}")


def begin(stack: Path, script: str, arguments: list[str]) -> None:
    """Be `script`, in a process that has its libraries already: a kill needs no import of torch. SIGUSR2 writes the
    names of the functions it is in into `stack`, innermost first."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(stack.with_name("stderr.txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    with stack.open("w") as file:
        faulthandler.register(SIGUSR2, file, all_threads=False)
        sys.argv = [str(ROOT / script), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")


def ask(process: BaseProcess, stack: Path) -> str:
    """-> the phase that a run is in, '' if it is over."""
    known, end = stack.stat().st_size, time.monotonic() + 1
    os.kill(process.pid, SIGUSR2)
    while "in begin" not in (names := stack.read_text()[known:]) and time.monotonic() < end:
        if not process.is_alive():
            return ""
        time.sleep(0.0005)
    return next(
        (place for place, pattern in PHASES.items() if re.search(pattern, names, re.MULTILINE)), "another place"
    )


def wait_for_a_step(run: TinyRun, is_alive: Callable[[], bool], before: int) -> None:
    """Until the run's folder shows more than `before`, or the run is over."""
    while run.written() <= before and is_alive():
        time.sleep(0.01)


def damaged_state(run: TinyRun) -> Row:
    """The next start must name the damage; it resumes from the previous state, and is killed again after a step."""
    row = Row("damaged state")
    for name, damage in DAMAGE.items():
        newest = run.newest_state()
        damage(max(newest.glob("*"), key=lambda path: path.stat().st_size * path.is_file()))
        noted = run.folder.with_name("noted.txt")
        with noted.open("w") as file:
            # Three steps: the state before must be there again for the next damage.
            kill_after_a_step(run.script, run.arguments(resume=True), run.written, steps=3, stderr=file)
        reports = [line for line in noted.read_text().splitlines() if "kept as" in line or "skipped: /" in line]
        row.add(bool(reports), f"{name}: {last_words(run, reports[0])}" if reports else f"{name}: nothing")
    return row


def full_disk(run: TinyRun) -> Row:
    """A limit below the largest file of the state, which Python makes an error like any other; a disk that is small."""
    row = Row("disk full")
    sizes = [path.stat().st_size for path in run.newest_state().rglob("*") if path.is_file()]
    limit = partial(setrlimit, RLIMIT_FSIZE, (max(sizes) - 1,) * 2)
    row.add(*one_line_and_whole(run, start_script(run.script, run.arguments(resume=True), preexec_fn=limit)))
    try:
        with small_disk(run.folder, sum(sizes) // 2):
            row.add(*one_line_and_whole(run, start_script(run.script, run.arguments(resume=True))))
    except PermissionError as error:
        row.seen.append(str(error))
    return row


@contextmanager
def small_disk(folder: Path, free: int) -> Iterator[None]:
    """`folder` lies on a file system of its own within, with so many bytes free; whole states move there and back."""

    def half_written(parent: str, names: list[str]) -> list[str]:
        states = [name for name in names if name == "last.partial" or name.startswith("checkpoint-")]
        return [name for name in states if not Path(parent, name, CHECKSUMS).is_file()]

    aside = folder.with_name("aside")
    shutil.copytree(folder, aside, ignore=half_written)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        shutil.rmtree(aside)
        raise PermissionError("no file system can be mounted here")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        size = f"remount,size={shutil.disk_usage(folder).used + free}"
        subprocess.run(["mount", "-o", size, str(folder)], check=True)
        yield
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder)
    aside.rename(folder)


def read_only(run: TinyRun) -> Row:
    row, before = Row("read-only folder"), run.written()
    process = start_script(run.script, run.arguments(resume=True))
    wait_for_a_step(run, lambda: process.poll() is None, before)
    if subprocess.run(["chattr", "+i", str(run.folder)], capture_output=True).returncode:
        process.kill()
        process.communicate()
        return Row("read-only folder (chattr +i is not available here)")
    try:
        row.add(*one_line_and_whole(run, process))
    finally:
        subprocess.run(["chattr", "-i", str(run.folder)], check=True)
    return row


def reader_killed(run: TinyRun) -> Row:
    """Any that there are until the run ends: one that is killed as it goes, its work done, is missed by nobody."""
    row, before, killed = Row("reader killed"), run.written(), 0
    process = start_script(run.script, run.arguments(resume=True, readers=1))
    wait_for_a_step(run, lambda: process.poll() is None, before)
    find = ["pgrep", "-P", str(process.pid), "pt_data_worker"]  # as torch calls them
    while process.poll() is None:
        for reader in subprocess.run(find, capture_output=True, text=True).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(reader), SIGKILL)
                killed += 1
    fine, said = one_line_and_whole(run, process)
    row.add(killed > 0 and fine, said if killed else "no reader was found")
    return row


def second_run(run: TinyRun) -> Row:
    row, before = Row("second run in the folder"), run.written()
    first = start_script(run.script, run.arguments(resume=True))
    wait_for_a_step(run, lambda: first.poll() is None, before)
    first.send_signal(SIGSTOP)  # it stays in the folder for as long as the second needs
    row.add(*one_line_and_whole(run, start_script(run.script, run.arguments(resume=True))))
    first.kill()
    first.communicate()
    return row


def one_line_and_whole(run: TinyRun, process: subprocess.Popen) -> tuple[bool, str]:
    """-> whether it ended with one line of explanation and left a state that is whole; the line."""
    code, error = finish(process)
    whole = not find_damage(run.newest_state())
    one_line = ": error: " in error.strip().splitlines()[-1] if error.strip() else False
    return code == 1 and one_line and "Traceback" not in error and whole, last_words(run, error)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, error = process.communicate()
    return process.returncode, error


def last_words(run: TinyRun, error: str, length: int = 140) -> str:
    """The last line, with the run's folder for short."""
    line = error.strip().splitlines()[-1] if error.strip() else "nothing"
    line = (line.partition(": error: ")[2] or line).replace(str(run.folder.parent), "...")
    return line if len(line) <= length else line[:length] + " ..."


if __name__ == "__main__":
    main(sys.argv[1:])
