#!/bin/sh
# Install cryptofeed, which `make bench` compares with, into a virtual environment of its own.
#
#     bench/install_cryptofeed.sh DIRECTORY FALLBACK_PYTHON
#
# Of its own, since cryptofeed 3 needs Python 3.13 and both 2.4 and 3 have opinions on versions that ours has too.
# With no Python 3.13 in sight (CRYPTOFEED_PYTHON names one) it is 2.4, on FALLBACK_PYTHON. Success leaves
# DIRECTORY/.ok, with the versions in it. Failure leaves a notice and status 0: the bench then goes without.

set -u
directory=$1
fallback=$2

# Run rather than looked up: a shim of pyenv is on the path and executable for every version that is not installed.
is_usable() {
    "$1" -c 'import ensurepip, sys, sysconfig, venv
sys.exit(sys.version_info < (3, 13) or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))' >/dev/null 2>&1
}

describe() {
    "$1" - <<'PY'
import platform
from importlib.metadata import version
build = "a shared library" if "libpython" in open("/proc/self/maps").read() else "in one piece"
print(f"{version('cryptofeed')} on Python {platform.python_version()}, {build}")
PY
}

# uvloop: from 0.22 on there is no event loop until one is made, and cryptofeed 2.4 makes none.
set -- 'cryptofeed[zmq]>=2.4.1,<3' 'uvloop<0.22'
python=$fallback
for candidate in "${CRYPTOFEED_PYTHON:-}" python3.14 python3.13 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.14*/bin/python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python; do
    if [ -n "$candidate" ] && is_usable "$candidate"; then
        set -- 'cryptofeed[zmq]>=3.0.1'
        python=$candidate
        break
    fi
done

echo "installing $1 into $directory, with $("$python" --version 2>&1) ..."
rm -rf "$directory"
if "$python" -m venv "$directory" &&
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@" numpy &&
    describe "$directory/bin/python" >"$directory/.ok.new"; then
    mv "$directory/.ok.new" "$directory/.ok" && exit 0
fi
rm -rf "$directory"
echo "NOTICE: cryptofeed was not installed, so the bench goes without it; the reason is above." \
    "CRYPTOFEED_PYTHON=/path/to/python3.13 names another interpreter."
