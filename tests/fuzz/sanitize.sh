#!/usr/bin/env bash
# The compiled part under the address and undefined-behaviour sanitizers: its tests, then the fuzz. Arguments are the
# fuzz's (--seconds, --seed, --target). The build is one of its own, in build/sanitize; .venv's stays as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/.venv/bin/python
home=$PWD/build/sanitize

for library in libasan.so libubsan.so; do
    path=$(${CC:-cc} -print-file-name=$library 2> /dev/null || true)
    [ "${path#/}" != "$path" ] || { echo "make sanitize needs gcc with $library (Debian: gcc and libc6-dev)"; exit 1; }
    preload=${preload:+$preload }$path
done

sources=$(find feedhandler -name '*.pxd' -o -name '*.pyx')
sources="$sources $(for each in $sources; do ls "${each%.*}.py" 2> /dev/null || true; done) setup.py tests/fuzz/sanitize.sh"
# shellcheck disable=SC2086
if [ ! -e "$home/made/.done" ] || [ -n "$(find $sources -newer "$home/made/.done")" ]; then
    echo "building the compiled part with sanitizers into $home ..."
    rm -rf "$home"
    mkdir -p "$home/source"
    # A copy: what is built from the tree itself must never be taken from here.
    cp -r feedhandler setup.py pyproject.toml README.md LICENSE "$home/source"
    find "$home/source" \( -name '*.so' -o -name '*.c' \) -delete
    flags="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
    CFLAGS=$flags LDFLAGS="-fsanitize=address,undefined" \
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$home/made" "$home/source"
    [ -n "$(find "$home/made" -name '*.so')" ] || { echo "it was not built: pip install -v $home/source says why"; exit 1; }
    rm -rf "$home/source"
    touch "$home/made/.done"
fi
rm -rf "$home/package"
mkdir "$home/package"
cp -r feedhandler "$home/package"
find "$home/package" -name '*.so' -delete
(cd "$home/made" && find feedhandler -name '*.so' -exec cp {} "$home/package/{}" \;)

export LD_PRELOAD=$preload PYTHONPATH=$home/package PYTHONSAFEPATH=1 PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1
# Python keeps much until its end, which is no leak; a size that is asked for in jest is refused, not an error.
export TEST_PATIENCE=5
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1
"$python" -c "
import ctypes, feedhandler
from pathlib import Path
assert feedhandler.IS_COMPILED
made = feedhandler.extensions(Path(feedhandler.__file__).parent)
for each in made:
    assert str(each).startswith('$home/'), each
    ctypes.CDLL(str(each)).__asan_init
"
"$python" -m pytest -q --capture=sys -p no:cacheprovider -p no:faulthandler \
    tests/transport/test_memory.py tests/transport/test_board_cut.py tests/transport/test_board_files.py \
    tests/transport/test_zmtp.py tests/transport/test_paced_outlet.py tests/transport/test_follower.py \
    tests/data/test_raw.py tests/feed/test_batch.py tests/merger/test_merge.py tests/exchanges
exec "$python" tests/fuzz "$@"
