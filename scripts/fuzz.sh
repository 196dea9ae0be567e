#!/usr/bin/env bash
# Searches for inputs that break the protocol: libFuzzer on the targets of fuzz/.
#
#   scripts/fuzz.sh run TARGET|all [SECONDS]    each target for so long (600)
#   scripts/fuzz.sh keep TARGET|all             minimises what was found, and the corpus, into the corpus
#   SANITIZER=address scripts/fuzz.sh ...       the same with the address sanitizer
#
# Needs a nightly toolchain, a C++ compiler and cargo-fuzz (`cargo install cargo-fuzz`). What is found gathers in fuzz/found, and
# an input that fails in fuzz/artifacts: put it into fuzz/corpus/TARGET under a name that tells what it showed.
set -euo pipefail
cd "$(dirname "$0")/.."

# The only foreign code that is not safe Rust is zlib-rs, behind the frames, which search ten times as fast without the address
# sanitizer: SANITIZER=address has it. Each kind of build has its own folder, so that neither throws the other's out.
SANITIZER=${SANITIZER:-none}

# Operations: long inputs from the start. Messages: libFuzzer lengthens them as it learns.
options() {
  case $1 in
    presence_ops | recovery_ops | socket_ops) echo -max_len=240 -len_control=0 ;;
    *) echo -max_len=4096 ;;
  esac
}

# The tokens' ciphers come with the server; all else is built without it.
features() {
  case $1 in
    phoenix_token) echo --features server ;;
  esac
}

libfuzzer() {
  local target=$1
  shift
  # shellcheck disable=SC2046
  cargo +nightly fuzz run --sanitizer "$SANITIZER" --target-dir "fuzz/target/$SANITIZER" $(features "$target") "$target" "$@"
}

# An input that takes a minute, or half a gigabyte, is a finding as well. The minute is the clock's: ten seconds pass on a busy
# machine with an input of a tenth of one.
run() {
  mkdir -p "fuzz/found/$1"
  # shellcheck disable=SC2046
  libfuzzer "$1" "fuzz/found/$1" "fuzz/corpus/$1" -- $(options "$1") \
    -max_total_time="$2" -timeout=60 -rss_limit_mb=1024 -malloc_limit_mb=512 -print_final_stats=1
}

# Keeps an input for each edge of the code rather than for each count of passes over it: hundreds, not thousands. Inputs with
# a name of their own are findings, and stay.
keep() {
  local corpus=fuzz/corpus/$1 minimised file hash
  minimised=$(mktemp -d)
  mkdir -p "fuzz/found/$1" "$corpus"
  libfuzzer "$1" "$minimised" "$corpus" "fuzz/found/$1" -- -max_len=4096 -merge=1 -use_counters=0
  find "$corpus" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
  cp "$minimised"/* "$corpus"
  rm -r "$minimised"
  # An input with a name is there once, under its own name.
  for file in "$corpus"/*; do
    [ -f "$file" ] || continue
    hash=$(sha1sum "$file" | cut -d' ' -f1)
    [ "$(basename "$file")" = "$hash" ] || rm -f "$corpus/$hash"
  done
  echo "$corpus: $(find "$corpus" -type f | wc -l) inputs, $(cat "$corpus"/* | wc -c) bytes"
}

command=${1:-} target=${2:-} seconds=${3:-600}
case $command in run | keep) ;; *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
if [ "$target" = all ]; then targets=(fuzz/fuzz_targets/*.rs); else targets=("$target.rs"); fi
for file in "${targets[@]}"; do
  name=$(basename "$file" .rs)
  [ -f "fuzz/fuzz_targets/$name.rs" ] || { echo "scripts/fuzz.sh: no target ${name:-given}" >&2; exit 2; }
  echo "==> $command $name"
  "$command" "$name" "$seconds"
done
