#!/usr/bin/env bash
# The test command: everything that must hold before a change goes in, from an empty target folder.
#
#   scripts/test.sh              all stages
#   scripts/test.sh STAGE...     only these, in the order given
#
# Stops at the first stage that fails, and says which. Everything is built in the dev profile, once.
set -uo pipefail
cd "$(dirname "$0")/.."

STAGES=(install format lint pure docs semver build rust doctests clients)

stage_install() { ./scripts/install.sh; }

stage_format() { cargo fmt --all --check; }

stage_lint() { cargo clippy --workspace --all-targets --locked -- -D warnings; }

# The protocol alone, without the features that bring tokio and warp: rule 2 of ARCHITECTURE.md.
stage_pure() { cargo clippy --lib --no-default-features --locked -- -D warnings && ./scripts/planted.sh; }

stage_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked; }

stage_semver() { ./scripts/semver.sh; }

stage_build() { cargo build --workspace --bins --examples --locked; }

stage_rust() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked
  else
    cargo test --workspace --lib --bins --examples --tests --locked
  fi
}

stage_doctests() { cargo test --workspace --doc --locked; }

# The stock clients, the page, the npm package and the MCP conformance suites, against the binaries of the build stage.
stage_clients() {
  local target=${CARGO_TARGET_DIR:-$PWD/target}
  local -x BENNU_BIN=${BENNU_BIN:-$target/debug/bennu} REFERENCE_BIN=${REFERENCE_BIN:-$target/debug/examples/reference}
  local -x EXAMPLES_BIN=${EXAMPLES_BIN:-$target/debug/examples}
  (cd js-client && npm test --silent)
}

describe() {
  case $1 in
    install) echo "install what is missing" ;;
    format) echo "formatting" ;;
    lint) echo "lints" ;;
    pure) echo "the pure protocol, without tokio and warp; planted faults are refused" ;;
    docs) echo "documentation" ;;
    semver) echo "the public API keeps what its version promises" ;;
    build) echo "build the server, the tools and the examples" ;;
    rust) echo "Rust tests" ;;
    doctests) echo "documentation tests" ;;
    clients) echo "stock clients in Chromium and Node, the page, the npm package, MCP conformance" ;;
  esac
}

minutes() { printf '%d min %02d s' "$(($1 / 60))" "$(($1 % 60))"; }

export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-$([ -n "${CI:-}" ] && echo 0 || echo 1)}
export CARGO_TERM_PROGRESS_WHEN=never

[ "$#" -gt 0 ] && STAGES=("$@")
for stage in "${STAGES[@]}"; do
  [ -n "$(describe "$stage")" ] || { echo "scripts/test.sh: no stage $stage" >&2; exit 2; }
done

for number in "${!STAGES[@]}"; do
  stage=${STAGES[$number]}
  began=$SECONDS
  echo
  echo "==> $((number + 1))/${#STAGES[@]} $stage: $(describe "$stage")"
  if ! "stage_$stage" </dev/null; then
    echo
    echo "FAILED in stage $stage after $(minutes $SECONDS); again with: scripts/test.sh $stage" >&2
    exit 1
  fi
  echo "    $stage took $(minutes $((SECONDS - began)))"
done

echo
echo "PASSED in $(minutes $SECONDS)"
