#!/usr/bin/env bash
# What a commit must hold besides its tests. Each failure says how to mend it.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH"
failed=0

run() { # run MEND COMMAND...
  local mend=$1
  shift
  if ! "$@"; then
    printf 'check: %s failed. %s\n' "$1" "$mend" >&2
    failed=1
  fi
}

fresh_generated_code() {
  local scratch
  scratch=$(mktemp -d) && buf generate -o "$scratch" || return 1
  local stale=0
  while IFS= read -r file; do
    cmp -s "$scratch/$file" "$file" || { echo "stale: $file" >&2; stale=1; }
  done < <(cd "$scratch" && find proto -name '*_pb.ts')
  rm -rf "$scratch"
  return $stale
}

# The contract of the main branch must stay readable by what was built against it.
no_breaking_change() {
  git rev-parse -q --verify 'HEAD^{commit}' >/dev/null && git cat-file -e HEAD:buf.yaml 2>/dev/null || return 0
  buf breaking --against ".git#ref=HEAD"
}

run "Mend the types." tsc -p .
run "Run \`biome check --write .\`, and mend what is left." biome check --error-on-warnings .
run "A rule of the house is broken; the line above says which and how to mend it." node deploy/check-rules.ts
run "Mend the contract as buf says." buf lint
run "Run \`make proto\` and commit what it writes." fresh_generated_code
run "Add a field instead of changing one; see docs/ARCHITECTURE.md, Contracts." no_breaking_change
exit $failed
