#!/usr/bin/env bash
# Writes Python stubs of Interlock's contracts, with Debian's python3-grpc-tools.
# usage: generate.sh [directory]   (default: .interlock/python, which git ignores)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$root/.interlock/python}
python=${PYTHON:-/usr/bin/python3}

if ! "$python" -c 'import grpc_tools.protoc, grpc' 2>/dev/null; then
  echo "generate.sh: $python has no grpc_tools or grpc. As root: apt-get install python3-grpcio python3-grpc-tools; or set PYTHON." >&2
  exit 1
fi
mkdir -p "$out"
cd "$root/proto"
"$python" -m grpc_tools.protoc -I. --python_out="$out" --grpc_python_out="$out" \
  google/rpc/*.proto interlock/v1/*.proto
