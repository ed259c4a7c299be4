#!/usr/bin/env bash
# Builds the images of deploy/compose.yaml: interlock/services and, where no registry is reachable, interlock/nats.
# usage: deploy/build-image.sh            BASE=node:24-slim deploy/build-image.sh   (on another base)
set -euo pipefail
cd "$(dirname "$0")/.."
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
base=${BASE:-interlock/base:bookworm}

cp -r bin proto services policies package.json package-lock.json "$context"/
find "$context" -name '*.test.ts' -delete
mkdir "$context/sandbox-images"
cp sandbox-images/*.json "$context/sandbox-images"/
# What only development needs stays out of the image.
(cd "$context" && npm ci --omit=dev --no-audit --no-fund --loglevel=error >&2)
docker build --quiet --tag "${SERVICES_IMAGE:-interlock/services}" --build-arg BASE="$base" --file deploy/Dockerfile "$context"

if [[ $base == interlock/* ]]; then
  nats=$(mktemp -d)
  trap 'rm -rf "$context" "$nats"' EXIT
  cp "$(command -v nats-server)" "$nats/nats-server"
  docker build --quiet --tag interlock/nats --build-arg BASE="$base" --file deploy/nats.Dockerfile "$nats"
fi
