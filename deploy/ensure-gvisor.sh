#!/usr/bin/env bash
# Registers gVisor's runsc as a runtime of this machine's Docker engine, where it is not one yet. A running engine takes
# it up without a restart. Other settings of the engine stay as they are.
# usage: deploy/ensure-gvisor.sh [DAEMON_JSON PID_FILE]      by default /etc/docker/daemon.json /var/run/docker.pid
set -euo pipefail
config=${1:-/etc/docker/daemon.json}
pid_file=${2:-/var/run/docker.pid}

say() { printf 'ensure-gvisor: %s\n' "$*" >&2; }

runsc=$(command -v runsc) || { say "runsc is missing. As root: apt-get install runsc"; exit 1; }
[[ $(id -u) == 0 ]] || { say "only root can register a runtime with the engine."; exit 1; }

# ptrace needs no KVM; host-uds lets a sandbox open the one socket that is mounted into it; control groups of version 1
# inside a container are more than this runsc can set up.
changed=$(node -e '
  const fs = require("node:fs");
  const [file, path] = process.argv.slice(1);
  const text = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "{}";
  const config = JSON.parse(text);
  const runtimeArgs = ["--platform=ptrace", "--network=none", "--ignore-cgroups", "--fsgofer-host-uds"];
  if (config.runtimes?.runsc !== undefined) process.exit(0);
  config.runtimes = { ...config.runtimes, runsc: { path, runtimeArgs } };
  fs.mkdirSync(require("node:path").dirname(file), { recursive: true });
  fs.writeFileSync(`${file}.new`, `${JSON.stringify(config, null, 2)}\n`);
  fs.renameSync(`${file}.new`, file);
  console.log("changed");
' "$config" "$runsc")
[[ -n $changed ]] || exit 0
say "runsc is a runtime in $config"
if [[ -f $pid_file ]] && kill -0 "$(cat "$pid_file")" 2>/dev/null; then
  kill -HUP "$(cat "$pid_file")" # the engine reads its runtimes anew
fi
