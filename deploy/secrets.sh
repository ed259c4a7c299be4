#!/usr/bin/env bash
# Makes what each service of deploy/compose.yaml is given, and nothing it does not need: only the broker gets the
# signing key, only the edge gets API keys, and every service gets a NATS user of its own.
# usage: deploy/secrets.sh [DIR]      (default deploy/secrets; an existing one is left alone)
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-deploy/secrets}
[[ -e $dir ]] && { echo "$dir is there already"; exit 0; }
umask 027
mkdir -p "$dir"
export PATH="$PWD/node_modules/.bin:$PATH"
node --disable-warning=ExperimentalWarning deploy/secrets.ts "$dir"
# The containers run as user 10001.
if [[ $(id -u) == 0 ]]; then chown -R 10001:10001 "$dir"; fi
