#!/bin/bash
# Remove the local VCH $1 and everything that was built here. Debian packages stay.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -x .venv/bin/vic-machine ]] && .venv/bin/vic-machine inspect "$1" >/dev/null 2>&1; then
  .venv/bin/vic-machine delete "$1" --force
fi
rm -rf build .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis mooring.egg-info
