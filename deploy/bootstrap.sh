#!/usr/bin/env bash
# Installs what a target needs and is missing; repeats in well under a second when nothing is.
# usage: deploy/bootstrap.sh packages|confinement|engine|nats|python|images|compose|postgres|gvisor|clients ...
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH"
mkdir -p .interlock

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# Node packages, Node 24 among them. The lock file's hash tells whether they are current.
packages() {
  local want stamp=node_modules/.interlock-lock
  command -v npm >/dev/null || { say "npm is missing. Install Node.js 20 or newer with npm, then run this again."; exit 1; }
  want=$(sha256sum package-lock.json | cut -d' ' -f1)
  [[ -f $stamp && $(cat "$stamp") == "$want" ]] && return
  say "installing Node packages (Node 24 among them)"
  npm ci --no-audit --no-fund --loglevel=error
  echo "$want" >"$stamp"
}

# apt PACKAGE...: Debian packages, where we may install them. Returns 1, having said what to do, where we may not.
apt_updated=""
apt() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [[ ${#missing[@]} == 0 ]] && return
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}. As root: apt-get install ${missing[*]}"
    return 1
  fi
  say "installing ${missing[*]}"
  if [[ -z $apt_updated ]]; then
    apt-get update -qq >&2
    apt_updated=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >.interlock/apt.log 2>&1 ||
    { tail -5 .interlock/apt.log >&2; say "could not install ${missing[*]}; see .interlock/apt.log"; return 1; }
}

# What gives isolate workers namespaces and a root of their own. Without it they run with less, and say so.
confinement() { command -v bwrap >/dev/null || apt bubblewrap || say "without bubblewrap isolates are confined less; \`bin/interlock doctor\` says how."; }

# A Docker engine for container sandboxes. Without one, isolates still work.
engine() {
  if docker info >/dev/null 2>&1; then return; fi
  if { command -v dockerd >/dev/null || apt docker.io iptables; } && deploy/ensure-docker.sh; then return; fi
  say "no Docker engine: container tools will be refused; isolate tools work. \`bin/interlock doctor\` says more."
}

images() {
  if ! docker info >/dev/null 2>&1; then return; fi
  if sandbox-images/build.sh --check; then return; fi
  if { command -v mmdebstrap && command -v gcc; } >/dev/null || apt mmdebstrap gcc libc6-dev; then
    sandbox-images/build.sh || say "the sandbox images could not be built: container tools will be refused."
  else
    say "mmdebstrap or gcc is missing, so the sandbox images cannot be built: container tools will be refused."
  fi
}

nats() { command -v nats-server >/dev/null || apt nats-server || say "without nats-server the tests over NATS cannot run."; }

python() { apt python3-grpcio python3-grpc-tools || say "without these the test of the Python client cannot run."; }

# A second isolation class for containers. Without it, tools that ask for gVisor are refused.
gvisor() {
  if ! docker info >/dev/null 2>&1; then return; fi
  if docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"runsc"'; then return; fi
  if { command -v runsc >/dev/null || apt runsc; } && deploy/ensure-gvisor.sh; then return; fi
  say "no gVisor: container tools that ask for it will be refused; the others work."
}

# What the tests of the way out of sandboxes speak through it with.
clients() { apt curl openssl git || say "without these the tests of egress cannot run."; }

# For the ledger's benchmark, beside which its transactions are measured; its own cluster is stopped, we start ours.
postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || apt postgresql ||
    say "without postgresql the ledger's benchmark cannot run."
}

compose() {
  command -v docker-compose >/dev/null || apt docker-compose ||
    say "without docker-compose the test of deploy/compose.yaml cannot run."
}

for part in "$@"; do
  case $part in
    packages | confinement | engine | nats | python | images | compose | postgres | gvisor | clients) "$part" ;;
    *) say "unknown part: $part"; exit 2 ;;
  esac
done
