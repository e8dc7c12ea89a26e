#!/bin/sh
# Makes .venv from requirements.lock. Run by `make`; safe to run again.
# llama.cpp is compiled for this machine's CPU once; the wheel is kept in the user's cache for later clones.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || die "There is no $python; on Debian: apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or later is needed, and $python is $("$python" -V 2>&1); set PYTHON to a later one."

pinned() { sed -n "s/^\($1==[^ ;]*\).*/\1/p" requirements.lock; }

uv=$(command -v uv || true)
if [ ! -x .venv/bin/python ]; then
    if [ -n "$uv" ]; then
        "$uv" venv -q --python "$python" .venv
    else
        "$python" -m venv .venv || die "Could not make .venv; on Debian: apt-get install python3-venv"
    fi
fi
if [ -z "$uv" ]; then
    uv=.venv/bin/uv
    if [ ! -x "$uv" ]; then
        say "Installing uv into .venv"
        .venv/bin/python -m pip install -q --disable-pip-version-check "$(pinned uv)"
    fi
fi

# The engine apart: its lines of the lock, and all others.
awk '/^[a-z]/ { engine = /^llama-cpp-python==/ } engine' requirements.lock >.venv/engine.lock
awk '/^[a-z]/ { engine = /^llama-cpp-python==/ } !engine' requirements.lock >.venv/packages.lock

say "Installing the packages of requirements.lock"
# Compiled now, where there are cores for it: otherwise every start of a fresh clone compiles thousands of files, and
# where Python may not write beside them (PYTHONDONTWRITEBYTECODE) each start does so again.
"$uv" pip sync -q --compile-bytecode --python .venv/bin/python .venv/packages.lock || die "The packages could not be installed."

engine=$(pinned llama-cpp-python)
arguments=$(.venv/bin/python - <<'PYTHON'
import tomllib
settings = tomllib.load(open("pyproject.toml", "rb"))["tool"]["uv"]["config-settings-package"]
print(" ".join(settings["llama-cpp-python"]["cmake.args"]))
PYTHON
)
# A wheel belongs to one CPU: what it can do is part of the name under which it is kept.
cpu=$(uname -m; sed -n 's/^\(flags\|Features\|CPU part\|model name\)[[:space:]]*: //p' /proc/cpuinfo | sort -u)
key=$(printf '%s\n' "$engine" "$arguments" "$cpu" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/capibara/engine
mkdir -p "$cache"
(
    # Two clones on one machine: the second waits for the wheel of the first.
    flock 9
    if [ -f "$cache/$key/done" ]; then
        exit 0
    fi
    command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 ||
        die "llama.cpp needs a C++ compiler; on Debian: apt-get install build-essential cmake"
    cores=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    export CMAKE_BUILD_PARALLEL_LEVEL="$cores" CMAKE_ARGS="$arguments"
    say "Compiling llama.cpp ($engine) for this CPU, once on this machine: about $((14 / cores + 1)) minutes on $cores core(s)."
    log=$cache/$key.log
    rm -rf "${cache:?}/$key"
    mkdir -p "$cache/$key"
    .venv/bin/python -m pip wheel -v --disable-pip-version-check --no-deps --require-hashes --no-binary :all: \
        --no-cache-dir --wheel-dir "$cache/$key" -r .venv/engine.lock >"$log" 2>&1 &
    worker=$!
    trap 'kill "$worker" 2>/dev/null || true; exit 130' INT TERM
    seconds=0
    while kill -0 "$worker" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        if [ $((seconds % 10)) -eq 0 ]; then
            # ninja counts its steps as [n/m].
            say "  $(grep -o '\[[0-9]*/[0-9]*\]' "$log" | tail -n 1 || true) ${seconds} s"
        fi
    done
    if ! wait "$worker"; then
        tail -n 15 "$log" >&2
        die "llama.cpp did not compile; the whole log is in $log."
    fi
    rm -f "$log"
    touch "$cache/$key/done"
) 9>"$cache/.lock"

"$uv" pip install -q --no-deps --python .venv/bin/python "$cache/$key"/*.whl
"$uv" pip install -q --no-deps --python .venv/bin/python -e .
.venv/bin/python -m compileall -q capibara_agents graphs runtime || true
touch .venv/.ready
say "Ready: $(.venv/bin/capibara --version) in .venv"
