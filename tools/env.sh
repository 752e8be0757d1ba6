#!/bin/bash
# Print the export lines for a docker client of the local VCH $1, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ -x .venv/bin/vic-machine ]] || { echo "env: nothing is installed here yet: make run" >&2; exit 1; }
socket="$(.venv/bin/vic-machine inspect "$1" --json | .venv/bin/python -c 'import json,sys; print(json.load(sys.stdin)["docker_socket"])')"
printf 'export DOCKER_HOST=%q\n' "unix://$socket"
command -v docker >/dev/null || printf 'export PATH="$PATH":%q\n' "$PWD/.cache/bin"
