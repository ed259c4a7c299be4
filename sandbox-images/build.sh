#!/usr/bin/env bash
# Builds the sandbox images from Debian packages, writes an SBOM of each, and pins them in images.lock.json. Two builds
# from the same packages give the same ids.
# usage: sandbox-images/build.sh             DEBIAN_MIRROR=URL in the environment names another mirror, a dated one say
#        sandbox-images/build.sh --check     true when the locked images exist and are of these inputs; fast
#        sandbox-images/build.sh --verify    builds again, elsewhere, and compares with the lock
#        sandbox-images/build.sh --base      only interlock/base:bookworm, which the services' own image stands on
set -euo pipefail
cd "$(dirname "$0")"
lock=images.lock.json
suite=bookworm
declare -A packages=(
  [python]="python3-minimal,libpython3-stdlib,ca-certificates"
  [node]="nodejs,ca-certificates"
  [shell]="bash,coreutils,findutils,grep,sed,gawk,jq,curl,git,openssl,ca-certificates"
)
# Every file is as old as this, whenever it was built.
export SOURCE_DATE_EPOCH=1735689600

say() { printf 'sandbox-images: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
inputs() { cat build.sh strip.sh assemble.ts harness/*.[ch] | sha256sum | cut -d' ' -f1; }
locked_ids() { grep -o '"id": "sha256:[0-9a-f]\{64\}' "$lock" 2>/dev/null | cut -d'"' -f4 || true; }

check() {
  local ids
  ids=$(locked_ids)
  [[ -n $ids ]] || { say "no lock file: the images have not been built"; return 1; }
  grep -q "\"inputs\": \"$(inputs)\"" "$lock" || { say "the recipe has changed since the images were built"; return 1; }
  # shellcheck disable=SC2086 # one word an id
  docker image inspect --format '{{.Id}}' $ids >/dev/null 2>&1 || { say "a locked image is not on this engine"; return 1; }
}

# Static, so that it runs in any image; nothing of this machine in it.
harness() {
  gcc -std=gnu17 -Os -static -s -Wall -Wextra -Werror -ffile-prefix-map="$PWD"=. -Wl,--build-id=none \
    -o "$scratch/harness" harness/*.c || fail "the harness does not compile."
}

rootfs() { # rootfs NAME VARIANT PACKAGES: its files go to $scratch/NAME.tar
  mmdebstrap --quiet --variant="$2" --components=main ${3:+--include="$3"} \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --customize-hook="./strip.sh \"\$1\" $1 ${scratch@Q}" \
    "$suite" "$scratch/$1.tar" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$scratch/$1.log" 2>&1 ||
    { tail -5 "$scratch/$1.log" >&2; say "mmdebstrap failed for $1; is a Debian mirror reachable?"; return 1; }
}

# Into the engine, but for --verify, which only compares.
assemble() { node assemble.ts "$1" "$scratch" "$SOURCE_DATE_EPOCH"; }
load() { docker load --quiet --input "$scratch/$1.image.tar" >/dev/null; }

build() {
  rootfs "$1" essential "${packages[$1]}" && assemble "$1"
}

build_all() {
  harness
  say "installing Debian $suite packages for: ${!packages[*]} (a minute)"
  local builds=() pid
  for name in "${!packages[@]}"; do build "$name" & builds+=($!); done
  local failed=""
  for pid in "${builds[@]}"; do wait "$pid" || failed=yes; done
  [[ -z $failed ]] || fail "an image could not be built; its last lines are above."
}

base() {
  say "base: Debian $suite (half a minute)"
  rootfs base apt "" && assemble base && load base
}

write_lock() {
  local comma="" name
  printf '{\n  "inputs": "%s",\n  "images": {' "$(inputs)"
  for name in $(printf '%s\n' "${!packages[@]}" | sort); do
    printf '%s\n    "%s": { "id": "%s", "sbom": "sha256:%s" }' "$comma" "$name" "$(cat "$scratch/$name.id")" \
      "$(sha256sum <"$scratch/$name.cdx.json" | cut -d' ' -f1)"
    comma=,
  done
  printf '\n  }\n}\n'
}

if [[ ${1:-} == --check ]]; then check; exit; fi
[[ $# == 0 || $# == 1 && ($1 == --verify || $1 == --base) ]] || fail "usage: $0 [--check | --verify | --base]"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: apt-get install mmdebstrap"
command -v gcc >/dev/null || fail "gcc is missing: apt-get install gcc libc6-dev"
[[ $(id -u) == 0 ]] || fail "building from Debian packages takes root: use sudo."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
started=$SECONDS

if [[ ${1:-} == --verify ]]; then
  build_all
  write_lock | diff "$lock" - >&2 || fail "a second build differs from $lock: Debian's packages, or this machine's gcc, have changed since."
  say "a second build gave the same ids after $((SECONDS - started)) s"
  exit
fi
docker version >/dev/null 2>&1 || fail "no Docker engine answers: run deploy/ensure-docker.sh first."

# One build at a time; who waited for another's takes that one.
exec 9<.
if ! flock -n 9; then
  say "another build is under way; waiting for it"
  flock 9
  if [[ $# == 0 ]] && check; then exit; fi
fi
if [[ ${1:-} == --base ]]; then base; exit; fi
build_all
docker image inspect "interlock/base:$suite" >/dev/null 2>&1 || base
mkdir -p sbom
for name in "${!packages[@]}"; do
  load "$name"
  cp "$scratch/$name.cdx.json" sbom/
  say "$name: $(cut -c1-19 "$scratch/$name.id"), $(($(stat -c %s "$scratch/$name.image.tar") / 1000000)) MB, $(grep -c '"purl"' "$scratch/$name.cdx.json") packages"
done
# What an earlier build made stays: other checkouts may share this engine, and their locks name it.
# Written whole or not at all: a runner may read it at any moment.
write_lock >"$lock.new" && mv "$lock.new" "$lock"
say "pinned in sandbox-images/$lock after $((SECONDS - started)) s"
