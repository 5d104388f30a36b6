# Sourced by scripts/start and scripts/check: makes .venv from a lock file, or finds it ready and returns at once.
# prepare_environment LOCK  leaves PATH with .venv/bin first; $PYTHON names the interpreter to build with, when set.

unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH  # compiled bytecode makes every start three times faster
export PIP_DISABLE_PIP_VERSION_CHECK=1

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    echo "v23 needs Python 3.11 or newer with its venv module, and found none; install one, or name it: PYTHON=/path/to/python3" >&2
    return 1
}

prepare_environment() {
    local lock=$1 python=.venv/bin/python stamp wanted found
    stamp=.venv/.installed-$lock
    if command -v sha256sum >/dev/null; then wanted=sha256sum; else wanted="shasum -a 256"; fi
    wanted=$({ cat "$lock" pyproject.toml setup.py; pwd; } | $wanted | cut -c1-64)
    if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ] || ! "$python" -c '' 2>/dev/null; then
        if ! "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            found=$(find_python) || return 1
            echo "Making .venv with $("$found" --version)" >&2
            "$found" -m venv --clear .venv || { echo "$found could not make a virtual environment in $PWD/.venv" >&2; return 1; }
        fi
        echo "Installing $lock (about a minute, once)" >&2
        rm -f "$stamp"
        "$python" -m pip install -qq --no-deps --require-hashes -r "$lock" || {
            echo "pip could not install $lock; it needs the package registry once, nothing after" >&2
            return 1
        }
        "$python" -m pip install -qq --no-deps --no-build-isolation -e . || { echo "pip could not install v23 from $PWD" >&2; return 1; }
        echo "$wanted" >"$stamp"
    fi
    export PATH="$PWD/.venv/bin:$PATH" VIRTUAL_ENV="$PWD/.venv"
}
