#!/bin/bash
# Pin every Python package with its hashes in requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
/usr/bin/python3 -m venv "$work"
"$work/bin/pip" install -q pip-tools
"$work/bin/pip-compile" -q --generate-hashes --extra dev --strip-extras --allow-unsafe --no-emit-index-url \
  --no-emit-trusted-host --no-emit-find-links --no-header --output-file requirements.lock "$@" pyproject.toml
