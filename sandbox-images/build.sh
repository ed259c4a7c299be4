#!/usr/bin/env bash
# Builds the sandbox images from Debian packages and pins them in images.lock.json.
# usage: sandbox-images/build.sh            BASE_IMAGE=debian:bookworm-slim sandbox-images/build.sh   (from a registry)
#        sandbox-images/build.sh --check    true when the locked images exist and are of these inputs; fast
set -euo pipefail
cd "$(dirname "$0")"
lock=images.lock.json
suite=bookworm
declare -A packages=(
  [python]="python3"
  [node]="nodejs"
  [shell]="bash coreutils findutils grep sed gawk jq"
)
# Every file is as old as this, whenever it was built.
export SOURCE_DATE_EPOCH=1735689600
# The engine's own builder: BuildKit is a client plug-in that may be missing.
export DOCKER_BUILDKIT=0

say() { printf 'sandbox-images: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
inputs() { cat build.sh Dockerfile | sha256sum | cut -d' ' -f1; }
locked_ids() { grep -o 'sha256:[0-9a-f]\{64\}' "$lock" 2>/dev/null || true; }

check() {
  local ids
  ids=$(locked_ids)
  [[ -n $ids ]] || { say "no lock file: the images have not been built"; return 1; }
  grep -q "\"inputs\": \"$(inputs)\"" "$lock" || { say "the recipe has changed since the images were built"; return 1; }
  # shellcheck disable=SC2086 # one word an id
  docker image inspect --format '{{.Id}}' $ids >/dev/null 2>&1 || { say "a locked image is not on this engine"; return 1; }
}

# The id of the image to build on.
base() {
  if [[ -n ${BASE_IMAGE:-} ]]; then
    docker pull --quiet "$BASE_IMAGE" >&2 || docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 ||
      fail "BASE_IMAGE=$BASE_IMAGE is neither here nor in a reachable registry."
    docker image inspect --format '{{.Id}}' "$BASE_IMAGE"
    return
  fi
  command -v mmdebstrap >/dev/null ||
    fail "mmdebstrap is missing: apt-get install mmdebstrap, or name an image of a registry: BASE_IMAGE=debian:$suite-slim $0"
  [[ $(id -u) == 0 ]] ||
    fail "building a base from Debian packages takes root: use sudo, or name an image of a registry: BASE_IMAGE=debian:$suite-slim $0"
  say "base: debootstrapping Debian $suite (half a minute)"
  mmdebstrap --quiet --variant=apt --components=main \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    "$suite" "$scratch/base.tar" 2>"$scratch/base.log" || { tail -5 "$scratch/base.log" >&2; fail "mmdebstrap failed; is a Debian mirror reachable?"; }
  docker import --change 'CMD ["bash"]' "$scratch/base.tar" "interlock/base:$suite"
}

build() { # build NAME BASE: its image id goes to $scratch/NAME.id
  # The host's network, because that is the one that reaches a Debian mirror; only here, never in a sandbox.
  docker build --quiet --no-cache --network host --tag "interlock/sandbox-$1" --label "interlock.sandbox=$1" \
    --build-arg BASE="$2" --build-arg PACKAGES="${packages[$1]}" --build-arg SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
    --build-arg http_proxy --build-arg https_proxy --iidfile "$scratch/$1.id" - <Dockerfile >"$scratch/$1.log" 2>&1 ||
    { tail -15 "$scratch/$1.log" >&2; return 1; }
  say "$1: $(docker image inspect --format '{{.Id}} {{.Size}}' "$(cat "$scratch/$1.id")" | awk '{ printf "%.19s, %d MB", $1, $2 / 1e6 }')"
}

if [[ ${1:-} == --check ]]; then check; exit; fi
[[ $# == 0 ]] || fail "usage: $0 [--check]"
docker version >/dev/null 2>&1 || fail "no Docker engine answers: run deploy/ensure-docker.sh first."

# One build at a time; who waited for another's takes that one.
exec 9<.
if ! flock -n 9; then
  say "another build is under way; waiting for it"
  flock 9
  if check; then exit; fi
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
started=$SECONDS
base_id=$(base)
before=$(locked_ids)

say "installing packages for: ${!packages[*]}"
builds=()
for name in "${!packages[@]}"; do build "$name" "$base_id" & builds+=($!); done
for pid in "${builds[@]}"; do wait "$pid" || fail "an image could not be built; its last lines are above."; done

# Written whole or not at all: a runner may read it at any moment.
{
  printf '{\n  "inputs": "%s",\n  "images": {' "$(inputs)"
  comma=""
  for name in $(printf '%s\n' "${!packages[@]}" | sort); do
    printf '%s\n    "%s": { "id": "%s" }' "$comma" "$name" "$(cat "$scratch/$name.id")"
    comma=,
  done
  printf '\n  }\n}\n'
} >"$scratch/lock"
cp "$scratch/lock" "$lock.new" && mv "$lock.new" "$lock"
for id in $before; do docker image rm "$id" >/dev/null 2>&1 || true; done # still in use: stays until a later build
say "pinned in sandbox-images/$lock after $((SECONDS - started)) s"
