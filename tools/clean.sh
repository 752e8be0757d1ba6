#!/bin/bash
# Remove the local VCH $1 and everything that was built here. Debian packages stay.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -e /var/lib/mooring/$1 ]]; then
  [[ -x .venv/bin/vic-machine ]] ||
    { echo "clean: VCH $1 is on this machine and vic-machine is not here to remove it: make setup" >&2; exit 1; }
  echo "clean: removing VCH $1 with its containers, images and volumes" >&2
  .venv/bin/vic-machine delete "$1" --force
fi
rm -rf build .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis mooring.egg-info
find . -name __pycache__ -prune -exec rm -rf {} +
