#!/usr/bin/env bash
# Run the tests with coverage: scripts/run_tests.sh PYTHON [PYTEST_ARGS]. Without arguments the
# tests that open windows have a process of their own.
set -uo pipefail
python=$1
shift
cover=(--cov --cov-append --cov-report=)

if [ $# -gt 0 ]; then
    exec "$python" -m pytest "$@"
fi

"$python" -m coverage erase
failed=0
"$python" -m pytest "${cover[@]}" --ignore=tests/widgets || failed=1
"$python" -m pytest "${cover[@]}" tests/widgets || failed=1
"$python" -m coverage report
exit "$failed"
