#!/usr/bin/env bash
# Run the tests with coverage: scripts/run_tests.sh PYTHON [PYTEST_ARGS]. Without arguments the
# tests that open windows run a few to a process: after some twenty windows in one process the
# graphics stack has been seen to abort it. A process that was aborted (never one whose tests
# failed) is tried once more.
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

run_windows() {
    "$python" -m pytest "${cover[@]}" -q "$@"
    local status=$?
    if [ "$status" -ge 128 ]; then
        echo "The process was aborted (status $status): once more."
        "$python" -m pytest "${cover[@]}" -q "$@"
        status=$?
    fi
    return "$status"
}

mapfile -t windows < <("$python" -m pytest --collect-only -q tests/widgets | grep '::')
[ "${#windows[@]}" -gt 0 ] || failed=1
for ((first = 0; first < ${#windows[@]}; first += 8)); do
    run_windows "${windows[@]:first:8}" || failed=1
done

"$python" -m coverage report
exit "$failed"
