#!/bin/bash
# Build the lab if its sources have changed, and print the path of its binary.
# It is one Go program over Debian's packages, without downloads; the result
# lies in .cache under the hash of what it was made from.
set -euo pipefail
cd "$(dirname "$0")/.."
cache="$PWD/.cache/lab"
library="$(dpkg-query -W -f '${Package} ${Version}\n' golang-go golang-github-vmware-govmomi-dev)"
key="$( (cat tests/lab/server/*.go; echo "$library") | sha256sum | cut -c 1-16)"
binary="$cache/lab-$key"
mkdir -p "$cache"
exec 9>"$cache/lock" && flock 9 # two test runs compile once
if [[ ! -x $binary ]]; then
  printf 'lab: compiling\n' >&2
  (cd tests/lab/server &&
    GOPATH=/usr/share/gocode GO111MODULE=off GOFLAGS= CGO_ENABLED=0 GOCACHE="$cache/go" nice go build -ldflags '-s -w' -o "$binary.new" .)
  find "$cache" -maxdepth 1 -name 'lab-*' ! -name '*.new' -delete
  mv "$binary.new" "$binary"
fi
echo "$binary"
