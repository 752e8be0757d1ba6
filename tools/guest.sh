#!/bin/bash
# Build the guest into $1 unless it is already what the present sources give.
set -euo pipefail
cd "$(dirname "$0")/.."
guest=$1
# (a kernel of our own is there only after `make kernel`)
sources="$({ cat tether/*.py tether/*.proto archive/*.py imagebuild/*.py imagebuild/kernels/* requirements.lock
  cat .cache/kernel/release 2>/dev/null || true; } | sha256sum)"
if [[ "$(cat "$guest/.stamp" 2>/dev/null)" != "$sources" ]]; then
  .venv/bin/python -m imagebuild "$guest" >&2
  printf '%s' "$sources" >"$guest/.stamp"
fi
