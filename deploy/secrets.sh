#!/usr/bin/env bash
# Makes what each service of deploy/compose.yaml is given, and nothing it does not need: only the broker gets the
# signing key and the hashes of API keys, and every service gets a NATS user of its own.
# usage: deploy/secrets.sh [DIR]      (default deploy/secrets; what is there already is left alone)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(realpath -m "${1:-$root/deploy/secrets}")
export PATH="$root/node_modules/.bin:$PATH"
user=10001:10001 # whom the containers run as

if [[ -e $dir/credentials.yaml ]]; then
  echo "secrets: $dir is there already; remove it to make new ones"
  exit
fi
umask 027
mkdir -p "$dir"
node --disable-warning=ExperimentalWarning "$root/deploy/secrets.ts" "$dir"

folders=(broker pdp ledger approvals runner nats)
if [[ $(id -u) == 0 ]]; then
  (cd "$dir" && chown -R "$user" "${folders[@]}")
else
  # Who may not give files away may have the engine do it.
  docker run --rm --network none --user 0:0 --entrypoint chown --workdir /secrets --volume "$dir:/secrets" \
    interlock/services -R "$user" "${folders[@]}"
fi
echo "secrets: made in $dir; the keys of the demo's agent, reviewer and operator are in credentials.yaml"
