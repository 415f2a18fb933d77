#!/bin/sh
# Run a command with a display: the one that is there, else a virtual one (Xvfb).
set -eu

if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || [ "$(uname -s)" != Linux ]; then
    exec "$@"
fi
if ! command -v xvfb-run >/dev/null || ! command -v xauth >/dev/null; then
    echo "There is no display, and no virtual one can be started: install Xvfb (on Debian and" \
        "Ubuntu: apt-get install xvfb xauth) and try again." >&2
    exit 1
fi
exec xvfb-run -a -s "-screen 0 1400x1000x24" "$@"
