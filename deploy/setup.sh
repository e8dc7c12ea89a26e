#!/bin/sh
# Makes .venv from requirements.lock. Run by `make`; safe to run again.
# The first time on a machine this compiles llama.cpp for its CPU; later clones take it from uv's cache.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || die "There is no $python; on Debian: apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or later is needed, and $python is $("$python" -V 2>&1); set PYTHON to a later one."

uv=$(command -v uv || true)
if [ -n "$uv" ] && ! "$uv" pip sync --help 2>/dev/null | grep -q -- --config-settings-package; then
    uv= # too old to carry the compile settings of pyproject.toml
fi
if [ ! -x .venv/bin/python ]; then
    if [ -n "$uv" ]; then
        "$uv" venv -q --python "$python" .venv
    else
        "$python" -m venv .venv || die "Could not make .venv; on Debian: apt-get install python3-venv"
    fi
fi
if [ -z "$uv" ]; then
    if [ ! -x .venv/bin/uv ]; then
        say "Installing uv into .venv"
        .venv/bin/python -m pip install -q --disable-pip-version-check "$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
    fi
    uv=.venv/bin/uv
fi

engine=$(sed -n 's/^llama-cpp-python==\([^ ]*\).*/\1/p' requirements.lock)
if ! "$uv" pip freeze --python .venv/bin/python 2>/dev/null | grep -qx "llama-cpp-python==$engine"; then
    cores=$(nproc)
    if ! command -v c++ >/dev/null 2>&1 && ! command -v g++ >/dev/null 2>&1; then
        say "There is no C++ compiler here; that is fine only if llama.cpp $engine was compiled on this machine before."
    fi
    say "Installing. The first time on this machine llama.cpp $engine is compiled for its CPU:"
    say "about $((14 / cores + 1)) minutes on $cores core(s); later clones reuse the result."
fi
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
log=.venv/setup.log
: >"$log"
("$uv" pip sync -v --python .venv/bin/python requirements.lock >>"$log" 2>&1; echo "exit $?" >>"$log") &
worker=$!
trap 'kill "$worker" 2>/dev/null || true; pkill -P "$worker" 2>/dev/null || true; exit 130' INT TERM
last=
seconds=0
while kill -0 "$worker" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    # ninja counts its steps as [n/m]; show the count when it has moved, and a sign of life every half minute.
    step=$(grep -o '\[[0-9][0-9]*/[0-9][0-9]*\]' "$log" | tail -n 1 || true)
    if [ -n "$step" ] && [ "$step" != "$last" ] && [ $((seconds % 5)) -eq 0 ]; then
        last=$step
        say "  compiling llama.cpp $step, ${seconds} s"
    elif [ $((seconds % 30)) -eq 0 ]; then
        say "  still installing, ${seconds} s"
    fi
done
wait "$worker" || true
trap - INT TERM
if ! grep -qx 'exit 0' "$log"; then
    grep -vE '^(DEBUG|TRACE|exit)' "$log" | tail -n 15 >&2
    command -v c++ >/dev/null 2>&1 || die "llama.cpp needs a C++ compiler; on Debian: apt-get install build-essential cmake"
    die "The installation failed; the whole log is in $log."
fi
"$uv" pip install -q --no-deps --python .venv/bin/python -e .
touch .venv/.ready
say "Ready: $(.venv/bin/capibara --version) in .venv"
