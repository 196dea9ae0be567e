#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: Debian's Chromium by apt, the test packages by npm and pip.
# Rust, Node and Python are expected to be there. Does nothing where all is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

need() {
  command -v "$1" >/dev/null || { echo "scripts/install.sh: $1 is missing: $2" >&2; exit 1; }
}
need cargo "install Rust from https://rustup.rs with the components rustfmt and clippy"
need node "install Node 20 or newer"
need npm "install Node 20 or newer"
need python3 "install Python 3.11 or newer"
need git "install git"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "scripts/install.sh: $(python3 --version) is too old: install Python 3.11 or newer" >&2; exit 1; }

missing=()
command -v cc >/dev/null || missing+=(build-essential)
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium)
# Debian keeps what makes virtual environments in a package of its own.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
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
  (cd js-client && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error </dev/null)
fi

# install_python FOLDER IMPORTS: FOLDER/.venv has what FOLDER/python/requirements.txt says. It carries the list that it was made
# from.
install_python() {
  local venv=$1/.venv wanted=$1/python/requirements.txt
  if cmp -s "$wanted" "$venv/requirements.txt" && "$venv/bin/python" -c "import $2" 2>/dev/null; then return; fi
  echo "installing the packages of $1/python"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all: -r "$wanted"
  cp "$wanted" "$venv/requirements.txt"
}
install_python tests/clients "realtime, phxsocket"
install_python tests/peers "mcp, mcp_server_git, mcp_server_time"
