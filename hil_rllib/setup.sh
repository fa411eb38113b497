#!/usr/bin/env bash
# Everything a fresh clone needs, into a virtual environment: Python packages, and OpenGL without a display.
# Called by the Makefile as `bash hil_rllib/setup.sh .venv`; repeating it does no harm.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

say() { printf '== %s\n' "$*"; }
stop() { printf '\nSet-up stopped: %s\n' "$*" >&2; exit 1; }

# Debian packages, where this user may install any; else false.
apt_install() {
    command -v apt-get >/dev/null || return 1
    local root=(env)
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n env)
    fi
    say "Installing Debian packages: $*"
    "${root[@]}" DEBIAN_FRONTEND=noninteractive apt-get update -qq || return 1
    "${root[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    return 1
}

# gym-hil brings pynput, which on Linux brings evdev, which is published as source only.
can_compile() {
    [ "$(uname -s)" != Linux ] || {
        command -v cc >/dev/null && [ -e /usr/include/linux/input.h ] &&
            "$1" -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("include"), "Python.h").stat()' \
                2>/dev/null
    }
}

# Sets `found` to what draws here, or to why nothing does; false in the second case.
opengl() {
    local code=0
    found=$("$venv/bin/python" - 2>&1 <<'EOF'
import sys
from envs import gl
try:
    print(gl.require_headless_gl())
except gl.HeadlessGLError as error:
    print(error)
    sys.exit(3)
EOF
    ) || code=$?
    [ $code = 0 ] || [ $code = 3 ] || stop "the check for OpenGL failed:
$found"
    return $code
}

python=$(find_python) || stop "Python 3.11 or newer is needed, but $(python3 --version 2>&1 || true) was found.
Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name one: make setup PYTHON=/path/to/python3.12"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    apt_install "python$version-venv" ||
        stop "$python cannot make virtual environments. Install python$version-venv (Debian, Ubuntu: apt-get install python$version-venv)."
fi
if ! can_compile "$python"; then
    packages=(gcc libc6-dev)
    [ "$(command -v "$python")" != "/usr/bin/${python##*/}" ] || packages+=("python$version-dev")
    { apt_install "${packages[@]}" && can_compile "$python"; } ||
        stop "one dependency (evdev) is compiled here and needs gcc, the kernel's and Python's headers.
Install them (Debian, Ubuntu: apt-get install gcc libc6-dev python$version-dev)."
fi

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    say "Making $venv with Python $version"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints.txt)
say "Installing PyTorch (a download of up to 3 GB)"
"${pip[@]}" torch==2.13.0
say "Installing the project and its other dependencies"
"${pip[@]}" --editable '.[dev]'

say "Looking for OpenGL that works without a display"
if ! opengl; then
    # EGL first; OSMesa, the fallback, is gone from newer distributions.
    { apt_install libegl1 libopengl0 libgl1-mesa-dri && opengl; } ||
        { apt_install libosmesa6 && opengl; } ||
        stop "images are drawn with OpenGL, and neither EGL nor OSMesa works here.
$found
Fedora: dnf install mesa-libEGL libglvnd-opengl mesa-dri-drivers. Then run the same command again."
fi
say "OpenGL: ${found##*$'\n'}"

touch "$venv/.ready"
say "Ready"
