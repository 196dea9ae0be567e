#!/usr/bin/env bash
# Checks that the public API still honours the version in Cargo.toml: a change that breaks users needs a new version first
# (before 1.0 the minor one). What users have is the API at the commit that set the present version.
set -euo pipefail
cd "$(dirname "$0")/.."

CHECKER=0.51.0

if ! cargo semver-checks --version >/dev/null 2>&1; then
  if [ -z "${CI:-}" ]; then
    echo "    cargo-semver-checks is not installed, the public API was not checked: cargo install --locked cargo-semver-checks"
    exit 0
  fi
  cargo install --locked --quiet "cargo-semver-checks@$CHECKER"
fi
if [ "$(git rev-parse --is-shallow-repository 2>/dev/null)" = true ]; then
  git fetch --quiet --unshallow || true
fi
# What was there is not known in a copy without history: HEAD would be compared with itself.
if [ "$(git rev-parse --is-shallow-repository 2>/dev/null)" != false ]; then
  echo "    NOT CHECKED: this copy has no history to compare the public API with" >&2
  exit 0
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
baseline=$(git log -1 --format=%H -G"^version = \"${version//./\\.}\"\$" -- Cargo.toml)
[ -n "$baseline" ] || { echo "scripts/semver.sh: no commit of this clone sets version $version" >&2; exit 1; }
echo "    version $version, against $(git log -1 --format='%h %s' "$baseline")"
cargo semver-checks check-release --package bennu --baseline-rev "$baseline" --release-type minor
