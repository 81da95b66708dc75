#!/bin/sh
# Print the Python to build .venv with: `python3`, or a better built one of 3.11 or newer if there is one.
#
# Where the interpreter is a shared library (libpython, as some version managers build it), feeds and merger cost
# a quarter more CPU, since more of it is to be fetched again after each sleep (docs/performance.md).
# `make PYTHON=...` decides instead.

set -u

# Status 0: usable and in one piece; 1: usable; 2: too old, without venv, or not there.
rank() {
    "$1" - <<'PY' 2>/dev/null
import sys
try:
    import ensurepip, sysconfig, venv
    maps = open("/proc/self/maps").read()
except ImportError:
    sys.exit(2)
except OSError:
    maps = ""
if sys.version_info < (3, 11) or sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(2)
sys.exit("libpython" in maps)
PY
}

usable=
for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3 /usr/local/bin/python3; do
    rank "$candidate"
    case $? in
    0)
        [ "$candidate" = python3 ] || echo "using $candidate: the interpreter of python3 is a shared library" >&2
        echo "$candidate"
        exit 0
        ;;
    1) usable=${usable:-$candidate} ;;
    esac
done
[ -z "$usable" ] || echo "note: $usable keeps its interpreter in a shared library, which costs CPU" >&2
echo "${usable:-python3}"
