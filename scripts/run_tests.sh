#!/usr/bin/env bash
# Run the tests: scripts/run_tests.sh PYTHON [PYTEST_ARGS]. Without arguments the tests that open
# windows have a process of their own. COVER=1 reports which lines they reach.
set -uo pipefail
python=$1
shift

if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi

cover=()
if [ -n "${COVER:-}" ]; then
    cover=(--cov --cov-append --cov-report=)
    "$python" -m coverage erase
fi
failed=0
"$python" -m pytest "${cover[@]}" --ignore=tests/widgets || failed=1
"$python" -m pytest "${cover[@]}" tests/widgets || failed=1
if [ -n "${COVER:-}" ]; then
    "$python" -m coverage report
fi
exit "$failed"
