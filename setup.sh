#!/usr/bin/env bash
# Makes .venv beside this file and installs what is missing; does nothing the second time.
#   ./setup.sh        what the scripts need
#   ./setup.sh dev    the same, and what tests and lint need
# PYTHON=python3.12 ./setup.sh picks the interpreter; an active virtual environment is not touched.
set -euo pipefail
cd "$(dirname "$0")"

requirements=requirements.txt
[ "${1:-}" = dev ] && requirements=requirements-dev.txt
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup.sh: $("$python" --version) is too old; install Python 3.11 or newer, or name one: PYTHON=python3.12 make demo" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv

# The stamp holds the requirements it was made from: an edited pin installs again, an unchanged one does not.
wanted=$(cat requirements.txt "$requirements")
for stamp in .venv/installed-requirements.txt .venv/installed-requirements-dev.txt; do
    [ "$requirements" = requirements-dev.txt ] && [ "$stamp" = .venv/installed-requirements.txt ] && continue
    [ -f "$stamp" ] && grep -qxF -f requirements.txt "$stamp" && [ "$(cat "$stamp")" = "$(cat requirements.txt "${stamp#.venv/installed-}")" ] && exit 0
done
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
printf '%s\n' "$wanted" > ".venv/installed-$requirements"
