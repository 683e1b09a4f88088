#!/usr/bin/env bash
# Makes .venv beside this file and installs what is missing, in the releases of requirements.lock; the second time it
# does nothing, at once.
#   ./setup.sh        what the scripts need
#   ./setup.sh dev    that, and what tests and lint need
# PYTHON=python3.12 ./setup.sh picks the interpreter.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup.sh: $("$python" --version) is too old; install Python 3.11 or newer and name it: PYTHON=python3.12 make demo" >&2
    exit 1
}

install() { # requirements file; its stamp holds what it was made from, so an edit of that installs again
    local stamp=".venv/installed-$1"
    cmp -s <(cat requirements*) "$stamp" && return
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    echo "installing $1 into .venv (some minutes the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1" -c requirements.lock
    cat requirements* > "$stamp"
}

install requirements.txt
if [ "${1:-}" = dev ]; then install requirements-dev.txt; fi
