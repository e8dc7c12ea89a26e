#!/bin/sh
# Cross-compiles llama-server for aarch64 from the llama-cpp-python that requirements.lock pins, twice:
#   single    one static binary for armv8.6-a with SVE2, i8mm, bf16 and fp16 (what a Neoverse V2 has)
#   variants  shared libraries with one set of kernels for each ARM generation, chosen at start
# The results stay in the user's cache; `where` prints the folder of each.
#   deploy/arm-build.sh [single|variants|all|where]     about 15 minutes each on two cores
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() { printf 'Error: %s\n' "$*" >&2; exit 1; }

compiler=aarch64-linux-gnu-gcc
requirement=$(awk '/^[a-z]/ { engine = /^llama-cpp-python==/ } engine' requirements.lock)

common="-DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
 -DCMAKE_C_COMPILER=$compiler -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DGGML_NATIVE=OFF -DGGML_CCACHE=OFF
 -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
 -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF"
# CMake finds OpenMP's shared library first, which a static binary cannot take.
gomp=$($compiler -print-file-name=libgomp.a 2>/dev/null || true)
single="-DBUILD_SHARED_LIBS=OFF -DGGML_CPU_ARM_ARCH=armv8.6-a+sve2+i8mm+bf16+fp16 -DCMAKE_EXE_LINKER_FLAGS=-static
 -DOpenMP_gomp_LIBRARY=$gomp"
variants="-DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON
 -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH=\$ORIGIN"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/capibara/arm
version=$($compiler -dumpfullversion 2>/dev/null || true)

# Another engine, other arguments or another compiler are another build.
key() { printf '%s\n' "$requirement" "$version" "$common" "$1" | sha256sum | cut -c1-16; }
source=$cache/source-$(printf '%s\n' "$requirement" | sha256sum | cut -c1-16)
single_folder=$cache/single-$(key "$single")
variants_folder=$cache/variants-$(key "$variants")

unpack() {
    [ -f "$source/.whole" ] && return
    say "Fetching the source of llama.cpp"
    rm -rf "${source:?}" "$cache/sdist"
    mkdir -p "$source" "$cache/sdist"
    printf '%s\n' "$requirement" >"$cache/sdist/requirement.txt"
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes --no-binary :all: \
        -d "$cache/sdist" -r "$cache/sdist/requirement.txt" >&2 || die "The source could not be fetched."
    tar -xzf "$cache"/sdist/*.tar.gz -C "$source" --strip-components=1
    rm -r "$cache/sdist"
    # GCC 12 cannot compile the two variants with SME, and no CPU meant here has it.
    sed -i '/ggml_add_cpu_backend_variant(armv9.2_[12] /d' "$source/vendor/llama.cpp/ggml/src/CMakeLists.txt"
    touch "$source/.whole"
}

# build NAME FOLDER ARGUMENTS
build() {
    [ -f "$2/done" ] && return
    for tool in "$compiler" aarch64-linux-gnu-g++ cmake; do
        command -v "$tool" >/dev/null 2>&1 ||
            die "There is no $tool; on Debian: apt-get install cmake gcc-aarch64-linux-gnu g++-aarch64-linux-gnu"
    done
    [ -x .venv/bin/python ] || die "There is no .venv yet: run make setup first."
    unpack
    jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-2}
    log=$2.log
    say "Compiling llama-server for aarch64 ($1), once on this machine: about $((30 / jobs)) minutes on $jobs core(s)."
    (
        # shellcheck disable=SC2086  # the arguments are many words
        nice -n 15 cmake -S "$source/vendor/llama.cpp" -B "$2" $common $3 &&
            nice -n 15 cmake --build "$2" --target llama-server -j "$jobs"
    ) >"$log" 2>&1 &
    worker=$!
    # The compilers too: they are all of this process group.
    trap 'trap - TERM; kill 0; exit 130' INT TERM
    seconds=0
    while kill -0 "$worker" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        if [ $((seconds % 30)) -eq 0 ]; then
            say "  $(grep -o '^\[ *[0-9]*%\]' "$log" | tail -n 1 || true) ${seconds} s"
        fi
    done
    if ! wait "$worker"; then
        tail -n 15 "$log" >&2
        die "llama.cpp did not compile for aarch64; the whole log is in $log."
    fi
    trap - INT TERM
    # The objects are ten times what they became.
    find "$2" -name CMakeFiles -type d -prune -exec rm -r {} +
    find "$2" -name '*.a' -delete
    touch "$2/done"
}

what=${1:-all}
case $what in
where) ;;
single | variants | all)
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    [ "$what" = single ] || build variants "$variants_folder" "$variants"
    [ "$what" = variants ] || build single "$single_folder" "$single"
    ;;
*) die "usage: deploy/arm-build.sh [single|variants|all|where]" ;;
esac
printf 'single %s\nvariants %s\n' "$single_folder" "$variants_folder"
