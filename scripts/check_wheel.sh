#!/usr/bin/env bash
# Build the wheel, install it alone into a fresh virtual environment and use it from an empty
# folder. Dependencies are borrowed from the development environment, which saves downloading
# gigabytes; the development install of napari-fedsam itself is left out. Usage:
# scripts/check_wheel.sh [VENV]
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
development=$(cd "${1:-.venv}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fresh=$work/venv

main() {
    # Through a source distribution, so that no left-over of an earlier build gets in.
    "$development/bin/python" -m build --outdir "$work/dist" >"$work/build.log" 2>&1 ||
        { cat "$work/build.log"; exit 1; }
    make_fresh_environment
    "$development/bin/python" -m pip --python "$fresh/bin/python" install --quiet --no-deps \
        --no-index "$work"/dist/napari_fedsam-*.whl
    mkdir "$work/empty"
    cd "$work/empty"
    export PATH="$fresh/bin:$PATH" NAPARI_FEDSAM_HOME="$work/home"
    unset PYTHONPATH
    napari-fedsam --version
    python "$repository/scripts/check_installed.py" "$fresh" "$repository/resources"
    npe2 validate napari-fedsam
    napari-fedsam demo --headless --quick --out demo-out
    test -s demo-out/summary.json
    echo "The wheel works."
}

# A virtual environment that sees everything in the development environment but napari-fedsam.
make_fresh_environment() {
    local packages borrowed=$work/borrowed script
    "$development/bin/python" -m venv --without-pip "$fresh"
    packages=$("$development/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir "$borrowed"
    find "$packages" -mindepth 1 -maxdepth 1 \
        ! -iname 'napari_fedsam*' ! -name '__editable__*' ! -name '*.pth' \
        -exec ln -s -t "$borrowed" {} +
    echo "$borrowed" >"$("$fresh/bin/python" -c \
        'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
    for script in "$development"/bin/*; do
        if [ -f "$script" ] && [ ! -e "$fresh/bin/${script##*/}" ] &&
            head -n 1 "$script" | grep -q "^#!$development/bin/python"; then
            sed "1s|$development|$fresh|" "$script" >"$fresh/bin/${script##*/}"
            chmod +x "$fresh/bin/${script##*/}"
        fi
    done
    rm -f "$fresh/bin/napari-fedsam"
}

main
