#!/usr/bin/env bash
# Every test, and the closing line `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH" TESTCONTAINERS_RYUK_DISABLED=true
report=$(mktemp)
vitest run --reporter=default --reporter=json --outputFile.json="$report" "$@"
status=$?
node -e '
  const r = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8"));
  console.log(`${r.numPassedTests} passed, ${r.numFailedTests} failed, ${r.numPendingTests + r.numTodoTests} skipped`);
' "$report" || status=1
rm -f "$report"
exit $status
