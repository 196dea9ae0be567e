#!/usr/bin/env bash
# Plants faults in a copy of the source, and fails unless each of them is refused: a lint that has stopped working looks the
# same as one that has nothing to say.
set -uo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
copy=$target/planted
rm -rf "$copy"
mkdir -p "$copy"
cp -r Cargo.toml Cargo.lock clippy.toml src examples benches README.md docs "$copy"
# The manifest names the tests; their installed packages are not needed.
find tests -name .venv -prune -o -type f -print0 | xargs -0 cp --parents -t "$copy"
victim=src/protocol/topic.rs

# expect NAME SOURCE MESSAGE: with SOURCE appended, clippy refuses the pure protocol and says MESSAGE.
expect() {
  cp "$victim" "$copy/$victim"
  printf '\n#[doc(hidden)]\n%s\n' "$2" >>"$copy/$victim"
  local said
  if said=$(cd "$copy" && CARGO_TARGET_DIR=$target cargo clippy --lib --no-default-features --locked -- -D warnings 2>&1); then
    echo "planted $1: not refused" >&2
    exit 1
  fi
  if ! grep -qF -- "$3" <<<"$said"; then
    echo "planted $1: refused, but not with \"$3\":" >&2
    tail -n 30 <<<"$said" >&2
    exit 1
  fi
  echo "    planted $1: refused"
}

expect "a monotonic clock" 'pub fn planted() -> std::time::Instant { std::time::Instant::now() }' \
  'use of a disallowed method `std::time::Instant::now`'
expect "a wall clock" 'pub fn planted() -> std::time::SystemTime { std::time::SystemTime::now() }' \
  'use of a disallowed method `std::time::SystemTime::now`'
expect "a clock read by its age" 'pub fn planted(t: std::time::Instant) -> std::time::Duration { t.elapsed() }' \
  'use of a disallowed method `std::time::Instant::elapsed`'
expect "tokio" 'pub fn planted() { tokio::task::yield_now(); }' 'error[E0433]'
expect "a random source" 'pub fn planted(b: &mut [u8]) { getrandom::fill(b).unwrap(); }' 'error[E0433]'

# Randomness is compiled in with the server: there the lint has to refuse it.
victim=src/protocol/query.rs
cp src/protocol/topic.rs "$copy/src/protocol/topic.rs"
cp "$victim" "$copy/$victim"
printf '\n#[doc(hidden)]\npub fn planted(b: &mut [u8]) { let _ = getrandom::fill(b); }\n' >>"$copy/$victim"
if (cd "$copy" && CARGO_TARGET_DIR=$target cargo clippy --lib --locked -- -D warnings) >"$copy/said" 2>&1 ||
  ! grep -qF 'use of a disallowed method `getrandom::fill`' "$copy/said"; then
  echo "planted randomness in the server's build: not refused by the lint" >&2
  tail -n 30 "$copy/said" >&2
  exit 1
fi
echo "    planted randomness in the server's build: refused"
