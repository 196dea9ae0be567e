#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: Debian's Chromium by apt, the test packages by npm.
# Rust and Node are expected to be there. Does nothing where all is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

need() {
  command -v "$1" >/dev/null || { echo "scripts/install.sh: $1 is missing: $2" >&2; exit 1; }
}
need cargo "install Rust from https://rustup.rs with the components rustfmt and clippy"
need node "install Node 20 or newer"
need npm "install Node 20 or newer"

missing=()
command -v cc >/dev/null || missing+=(build-essential)
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium)
if [ "${#missing[@]}" -gt 0 ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  command -v apt-get >/dev/null || { echo "scripts/install.sh: no apt-get; install by hand: ${missing[*]}" >&2; exit 1; }
  echo "installing ${missing[*]}"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 40 "$log" >&2
    exit 1
  fi
  rm -f "$log"
fi

# npm leaves a copy of the lock file in node_modules; where ours is no newer, what is installed is what it says.
if [ ! -e js-client/node_modules/.package-lock.json ] || [ js-client/package-lock.json -nt js-client/node_modules/.package-lock.json ]; then
  echo "installing the packages of js-client"
  (cd js-client && npm ci --no-fund --no-audit --loglevel=error </dev/null)
fi
