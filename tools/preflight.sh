#!/bin/bash
# Say what this machine lacks for a VCH, all of it, each with its cure, before anything is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
problems=()
lack() { problems+=("$*"); }

[[ $EUID -eq 0 ]] || lack "root is needed (bridges, taps, loop devices): run as root"
[[ "$(uname -m)" == x86_64 ]] || lack "this machine is $(uname -m); container VMs are x86_64 only"
[[ -e /etc/debian_version ]] || lack "this needs Debian 12 (apt and its packages)"
if [[ -x /usr/bin/python3 ]] && ! /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  lack "/usr/bin/python3 is $(/usr/bin/python3 -V | cut -d' ' -f2); 3.11 is needed, which Debian 12 has"
fi
for pair in /dev/net/tun:tun /dev/fuse:fuse /dev/loop-control:loop; do
  device=${pair%:*} module=${pair#*:}
  [[ -e $device ]] || modprobe "$module" 2>/dev/null || true
  [[ -e $device ]] || lack "$device is missing: load the kernel module (modprobe $module), or give this machine the device"
done
room() { # DIRECTORY MEGABYTES WHAT
  local at=$1 free
  while [[ ! -d $at ]]; do at=$(dirname "$at"); done
  free=$(df --output=avail --block-size=1M "$at" | tail -1)
  ((free >= $2)) || lack "$at has $((free)) MB free and $3 needs $2: make room, or use another disk"
}
[[ -e build/guest/.stamp && -e .venv/.stamp ]] || room "$PWD" 1000 "building"
room /var/lib/mooring 500 "a VCH with its first images"
free=$(awk '/^MemAvailable/{print int($2 / 1024)}' /proc/meminfo)
((free >= 400)) || lack "$free MB of memory are available and one container VM with its daemons needs 400"

if ((${#problems[@]})); then
  printf 'preflight: %s\n' "${problems[@]}" >&2
  exit 1
fi
