#!/usr/bin/env bash
# Run the tests: scripts/run_tests.sh PYTHON [PYTEST_ARGS]. Without arguments the tests that open
# windows run beside the others, in a process with a display and a thread of its own; what it
# prints comes last. COVER=1 reports which lines the tests reach.
set -o pipefail
cd "$(dirname "$0")/.."
python=$1
shift

if [ $# -gt 0 ]; then
    exec scripts/with_display.sh "$python" -m pytest "$@"
fi

# One process on each core: more threads would only wait for one another.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# part NAME PYTEST_ARGS...
part() {
    local cover=()
    if [ -n "${COVER:-}" ]; then
        export COVERAGE_FILE=$work/coverage.$1
        cover=(--cov --cov-report=)
    fi
    scripts/with_display.sh "$python" -m pytest "${cover[@]}" "${@:2}"
}

failed=0
part windows tests/widgets >"$work/windows" 2>&1 &
windows=$!
part others --ignore=tests/widgets || failed=1
wait "$windows" || failed=1
cat "$work/windows"
if [ -n "${COVER:-}" ]; then
    "$python" -m coverage combine "$work"/coverage.*
    "$python" -m coverage report
fi
exit "$failed"
