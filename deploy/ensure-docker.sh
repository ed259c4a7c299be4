#!/usr/bin/env bash
# Starts a Docker engine where none answers, and leaves a running one alone. Its log: .interlock/dockerd.log.
set -euo pipefail
cd "$(dirname "$0")/.."
log=.interlock/dockerd.log

say() { printf 'ensure-docker: %s\n' "$*" >&2; }
answers() { timeout 5 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

command -v docker >/dev/null || { say "the docker command is missing. As root: apt-get install docker.io"; exit 1; }
if answers; then exit 0; fi
if [[ -n ${DOCKER_HOST:-} ]]; then
  say "the engine at DOCKER_HOST=$DOCKER_HOST does not answer: start it, or unset DOCKER_HOST to use one of this machine."
  exit 1
fi
if [[ $(id -u) != 0 ]]; then
  say "no engine answers, and only root can start one. As root: dockerd, or systemctl start docker."
  say "If one runs already, your user may not reach it: add it to the group docker, or use sudo."
  exit 1
fi
command -v dockerd >/dev/null || { say "dockerd is missing. As root: apt-get install docker.io iptables"; exit 1; }
mkdir -p .interlock

# start_dockerd ARGUMENT...: true once it answers; false when it ended or did not answer in 30 seconds.
start_dockerd() {
  say "starting dockerd $*"
  # A session of its own and no terminal: it outlives make. Without our lock descriptors, it holds nobody up.
  setsid nohup dockerd "$@" >"$log" 2>&1 </dev/null 9>&- &
  local pid=$!
  for ((i = 0; i < 150; i++)); do
    if answers; then return 0; fi
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.2
  done
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  return 1
}

# Two at the same time (two terminals, tests) must not start two engines.
exec 9>.interlock/dockerd.lock
flock -w 60 9 || { say "another ensure-docker.sh has been under way for a minute; see $log"; exit 1; }
if answers; then exit 0; fi
if start_dockerd; then exit 0; fi

# Sandboxes need no network, so an engine without firewall rules or a bridge still does; nor do they need overlayfs.
flags=()
grep -qiE 'iptables|nftables|bridge' "$log" && flags+=(--iptables=false --ip6tables=false --bridge=none)
grep -qiE 'overlay|storage.driver|graphdriver' "$log" && flags+=(--storage-driver=vfs)
if [[ ${#flags[@]} -gt 0 ]]; then
  cp "$log" "$log.first"
  if start_dockerd "${flags[@]}"; then exit 0; fi
fi
say "dockerd does not answer. The end of $log:"
grep -E 'level=(error|fatal)|failed' "$log" | tail -3 >&2 || tail -3 "$log" >&2
exit 1
