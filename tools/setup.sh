#!/bin/bash
# Install what Mooring needs: Debian packages (only the missing ones) and the
# virtual environment that requirements.lock pins. Quick when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

[[ $EUID -eq 0 ]] || fail "root is needed (bridges, taps, loop devices): run as root"
[[ -e /etc/debian_version ]] || fail "this needs Debian 12 (apt and its packages); other systems: see README.md"

packages=(
  python3 python3-venv           # the virtual environment
  qemu-system-x86 qemu-utils     # the hypervisor and its disk tools
  nftables iproute2              # networks
  e2fsprogs util-linux           # file systems and loop devices
  tini libpython3.11             # into the initramfs
  kmod cpio xorriso isolinux syslinux-common binutils # initramfs and bootstrap.iso
  lz4                            # Debian's kernel is packed with it
  busybox-static                 # the proof container
)
lab=(golang-go golang-github-vmware-govmomi-dev) # the vSphere lab is compiled from them
case "${1:-}" in
  --kernel) packages+=(linux-source-6.1 gcc make flex bison bc libelf-dev libssl-dev lz4 xz-utils) ;;
  --test) packages+=(docker-registry mmdebstrap skopeo rpm2cpio rpm zstd iptables procps "${lab[@]}") ;;
  --lab) packages+=("${lab[@]}") ;;
  --clients) packages+=(docker-compose openssh-server docker-registry) ; command -v npm >/dev/null || packages+=(nodejs npm) ;;
  --bench) packages+=(docker-registry skopeo zstd iptables procps) ;;
esac
missing=()
for package in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  say "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  [[ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mmin -1440 -print -quit 2>/dev/null)" ]] ||
    apt-get -qq update || fail "apt-get update failed: check the network and /etc/apt/sources.list"
  # A package's service must not start just because a tool of it is wanted.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get install failed; the packages wanted: ${missing[*]}"
fi

stamp=.venv/.stamp
wanted="$(cat requirements.lock pyproject.toml | sha256sum)"
if [[ "$(cat $stamp 2>/dev/null)" != "$wanted" ]]; then
  say "creating the virtual environment"
  [[ -x .venv/bin/python ]] || /usr/bin/python3 -m venv .venv
  .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock 2>/dev/null ||
    .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock ||
    fail "pip could not install what requirements.lock names: check the network"
  .venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ||
    fail "the project itself does not install"
  printf '%s' "$wanted" >$stamp
fi

# The docker CLI: what the machine has, else the one inside Debian's package,
# unpacked and not installed (installing it would start another daemon).
if ! command -v docker >/dev/null && [[ ! -x .cache/bin/docker ]]; then
  say "fetching a docker CLI"
  mkdir -p .cache/bin .cache/docker
  (cd .cache/docker && apt-get -qq download docker.io) ||
    { apt-get -qq update && (cd .cache/docker && apt-get -qq download docker.io); } ||
    fail "no docker CLI in PATH, and apt-get download docker.io failed"
  dpkg-deb -x .cache/docker/docker.io_*.deb .cache/docker
  ln -sf ../docker/usr/bin/docker .cache/bin/docker
fi
