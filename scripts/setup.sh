#!/usr/bin/env bash
# Install napari-fedsam for development into a virtual environment, and on Debian and Ubuntu, when
# run as root, the system packages that a napari window needs. Usage: scripts/setup.sh [VENV]
# PYTHON names the interpreter to use; without it the first of python3, python3.1x that fits is.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

# What Qt, OpenGL and a virtual display load when they start, and the Debian package that has it.
libraries=(
    libEGL.so.1=libegl1
    libGL.so.1=libgl1
    libglib-2.0.so.0=libglib2.0-0
    libfontconfig.so.1=libfontconfig1
    libdbus-1.so.3=libdbus-1-3
    libxkbcommon-x11.so.0=libxkbcommon-x11-0
    libxcb-cursor.so.0=libxcb-cursor0
    libxcb-icccm.so.4=libxcb-icccm4
    libxcb-image.so.0=libxcb-image0
    libxcb-keysyms.so.1=libxcb-keysyms1
    libxcb-randr.so.0=libxcb-randr0
    libxcb-render-util.so.0=libxcb-render-util0
    libxcb-shape.so.0=libxcb-shape0
    libxcb-xinerama.so.0=libxcb-xinerama0
)
programs=(xvfb-run=xvfb xauth=xauth fc-list=fontconfig)

main() {
    local python
    if [ ! -x "$venv/bin/python" ]; then
        python=$(find_python) || python=$(install_python)
        echo "Making $venv with $("$python" --version)"
        "$python" -m venv "$venv"
    fi
    if [ "$(uname -s)" = Linux ]; then
        install_system_packages
    fi
    install_package
}

may_use_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    # Package lists of a fresh image are empty or stale.
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

install_python() {
    if may_use_apt && [ -z "${PYTHON:-}" ]; then
        apt_install python3 python3-venv >&2
        find_python && return
    fi
    echo "No Python 3.11 or newer with venv was found: install one, or name it as in" \
        "'make setup PYTHON=/path/to/python3.12'." >&2
    return 1
}

missing_system_packages() {
    local entry loadable
    loadable=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p || true)
    for entry in "${libraries[@]}"; do
        case $loadable in
            *"${entry%%=*} "*) ;;
            *) echo "${entry##*=}" ;;
        esac
    done
    for entry in "${programs[@]}"; do
        command -v "${entry%%=*}" >/dev/null || echo "${entry##*=}"
    done
    # Without a driver Xvfb offers no OpenGL; without a font Qt draws empty boxes.
    compgen -G '/usr/lib*/dri/*.so' >/dev/null || compgen -G '/usr/lib/*/dri/*.so' >/dev/null ||
        echo libgl1-mesa-dri
    [ -n "$(fc-list 2>/dev/null | head -n 1)" ] || echo fonts-dejavu-core
}

install_system_packages() {
    local missing
    missing=$(missing_system_packages | paste -s -d ' ' -)
    [ -n "$missing" ] || return 0
    if may_use_apt; then
        echo "Installing system packages: $missing"
        # shellcheck disable=SC2086  # a list of words
        apt_install $missing
    else
        echo "A napari window, real or virtual, needs system packages that are missing here. On" \
            "Debian and Ubuntu run 'sudo apt-get install $missing'; elsewhere install what" \
            "corresponds to them." >&2
    fi
}

install_package() {
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check)
    # Resolved together in one step, torch and torchvision fit each other.
    "${pip[@]}" install --quiet --progress-bar off torch torchvision
    "${pip[@]}" install --quiet --progress-bar off -e '.[dev]'
    "$venv/bin/napari-fedsam" --version
}

main
