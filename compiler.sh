#!/bin/sh
# Status 0 if an extension of a Python (the argument) can be compiled here: its C compiler and its headers are there.

set -u

facts='import os, sysconfig
print(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
print(sysconfig.get_path("include"))'
{ read -r compiler && read -r headers; } <<EOF
$("$1" -c "$facts" 2>/dev/null)
EOF
# The compiler may be several words, such as `gcc -pthread`.
echo '#include <Python.h>' | $compiler -I "$headers" -fsyntax-only -x c - >/dev/null 2>&1
