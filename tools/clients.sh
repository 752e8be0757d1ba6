#!/bin/bash
# Fetch the docker clients that nobody here wrote, for `make test-clients`: docker-compose 1.29 and an ssh
# server from Debian 12, docker-compose 2 from the next Debian (its one dependency is libc: unpacked, not
# installed), dockerode from npm. docker-py, aiodocker and testcontainers come with the virtual environment.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { printf 'clients: %s\n' "$*" >&2; exit 1; }

tools/setup.sh --clients
cache=$PWD/.cache/clients
mkdir -p "$cache"

# Where the next release cannot be had, its compose is left out, and the test of it says so.
next_compose() {
  local work=$1
  mkdir -p "$work"/{sources,lists/partial,cache/archives/partial}
  # This machine's own sources, for the release after it.
  sed 's/^Suites:.*/Suites: trixie/' /etc/apt/sources.list.d/debian.sources | awk -v RS= 'NR == 1' >"$work/sources/next.sources"
  local apt=(apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources"
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update && (cd "$work" && "${apt[@]}" download docker-compose) &&
    dpkg-deb -x "$work"/docker-compose_*.deb "$work/compose" && rm -rf "$cache/compose" &&
    cp -a "$work/compose" "$cache/.new-compose" && mv "$cache/.new-compose" "$cache/compose"
}
if [[ ! -x $cache/compose/usr/libexec/docker/cli-plugins/docker-compose ]]; then
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
  rm -rf "$cache/.new-compose"
  next_compose "$work" || echo "clients: docker-compose 2 cannot be had here: it is not tested" >&2
fi

if [[ ! -d $cache/node/node_modules/dockerode ]]; then
  mkdir -p "$cache/node"
  (cd "$cache/node" && npm install --silent --no-audit --no-fund --ignore-scripts dockerode@4.0.9) ||
    fail "npm could not install dockerode"
fi
