#!/bin/bash
# Create (or start) the local VCH $1 with the guest in $2 and prove it by one container.
set -euo pipefail
cd "$(dirname "$0")/.."
vch=$1 guest=$2
PATH="$PATH:$PWD/.cache/bin"
say() { printf 'run: %s\n' "$*" >&2; }

if .venv/bin/vic-machine inspect "$vch" --json >/dev/null 2>&1; then
  say "VCH $vch exists: starting what is not running"
  .venv/bin/vic-machine start "$vch" >/dev/null
else
  say "creating VCH $vch (the first time a probe VM finds the accelerator: up to half a minute)"
  .venv/bin/vic-machine create --name "$vch" --guest "$guest" >/dev/null
fi
socket="$(.venv/bin/vic-machine inspect "$vch" --json | .venv/bin/python -c 'import json,sys; print(json.load(sys.stdin)["docker_socket"])')"
export DOCKER_HOST="unix://$socket"
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
if ! docker image inspect busybox >/dev/null 2>&1; then
  say "loading image busybox, made from Debian's busybox-static"
  .venv/bin/python tools/busybox_image.py | docker load >/dev/null
fi
say "docker run --rm busybox uname -a"
docker run --rm busybox uname -a
again="" && [[ $vch == mooring ]] || again=" VCH=$vch"
cat <<END

VCH $vch is up. Use it:
  docker context create $vch --docker host=$DOCKER_HOST
  docker --context $vch run --rm busybox uname -a
or, in this shell:
  eval "\$(make -s env$again)"
Start it at every boot:
  .venv/bin/vic-machine service $vch
END
