#!/usr/bin/env bash
# Builds the images of deploy/compose.yaml, interlock/services and interlock/nats (this machine's nats-server), where
# what goes into them has changed.
# usage: deploy/build-image.sh            BASE=node:24-slim deploy/build-image.sh   (on another base)
set -euo pipefail
cd "$(dirname "$0")/.."
base=${BASE:-interlock/base:bookworm}
# The engine's own builder: BuildKit is a client plug-in that may be missing.
export DOCKER_BUILDKIT=0

say() { printf 'build-image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
digest() { sha256sum | cut -d' ' -f1; }

mkdir -p .interlock/image
exec 9>.interlock/image/lock
flock 9

docker image inspect "$base" >/dev/null 2>&1 || docker pull --quiet "$base" >&2 ||
  fail "the base image $base is neither here nor in a reachable registry: run sandbox-images/build.sh, or name one with BASE=."
base_id=$(docker image inspect --format '{{.Id}}' "$base")

# of IMAGE INPUTS: true when the image there is already made of these inputs.
of() { [[ $(docker image inspect --format '{{index .Config.Labels "interlock.inputs"}}' "$1" 2>/dev/null) == "$2" ]]; }

# build IMAGE INPUTS DOCKERFILE CONTEXT. The image it replaces goes, where nothing runs on it.
build() {
  local old
  old=$(docker image inspect --format '{{.Id}}' "$1" 2>/dev/null || true)
  docker build --quiet --tag "$1" --label "interlock.inputs=$2" --build-arg BASE="$base" --file "$3" "$4" >.interlock/image/build.log 2>&1 ||
    { tail -15 .interlock/image/build.log >&2; fail "$1 could not be built."; }
  if [[ -n $old ]]; then docker image rm "$old" >/dev/null 2>&1 || true; fi
  say "$1: $(docker image inspect --format '{{.Id}} {{.Size}}' "$1" | awk '{ printf "%.19s, %d MB", $1, $2 / 1e6 }')"
}

sources() {
  find bin proto services policies deploy/health.ts package.json package-lock.json sandbox-images/images.lock.json \
    sandbox-images/seccomp.json -type f ! -name '*.test.ts' ! -name '*fixture.ts' -print0 | sort -z
}

services() {
  local inputs lock context=.interlock/image/context
  inputs=$({ sources | xargs -0 sha256sum; cat deploy/Dockerfile deploy/build-image.sh; echo "$base_id"; } | digest)
  if of interlock/services "$inputs"; then return; fi
  mkdir -p "$context"
  # What only development needs stays out of the image. The packages are fetched again when the lock file changes.
  lock=$(cat package.json package-lock.json | digest)
  if [[ $(cat "$context/modules/lock" 2>/dev/null) != "$lock" ]]; then
    say "fetching the packages that run"
    rm -rf "$context/modules"
    mkdir "$context/modules"
    cp package.json package-lock.json "$context/modules"/
    (cd "$context/modules" && npm ci --omit=dev --no-audit --no-fund --loglevel=error >&2)
    echo "$lock" >"$context/modules/lock"
  fi
  rm -rf "$context/sources"
  mkdir "$context/sources"
  sources | xargs -0 cp --parents --target-directory "$context/sources"
  build interlock/services "$inputs" deploy/Dockerfile "$context"
}

nats() {
  local inputs server context=.interlock/image/nats
  server=$(command -v nats-server) || fail "nats-server is missing: apt-get install nats-server."
  inputs=$({ cat "$server" deploy/nats.Dockerfile; echo "$base_id"; } | digest)
  if of interlock/nats "$inputs"; then return; fi
  mkdir -p "$context"
  cp "$server" "$context/nats-server"
  build interlock/nats "$inputs" deploy/nats.Dockerfile "$context"
}

services
nats
