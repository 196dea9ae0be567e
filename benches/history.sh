#!/usr/bin/env bash
# What does history cost? Loads Bennu's reference application in turns, round by round: without history, with it, and with clients
# that ask for positions too. Prints for each load the medians, and the median of the rounds' ratios to the first.
#
# Needs two cores. Build first:
#   cargo build --release --bin bennu --example reference
#
# Settings, all from the environment: BENNU, REFERENCE, OUT, ROUNDS (5), SECONDS_A_RUN (4), CONNECTIONS (5000), SETTLE (10),
# SERVER_CORE, CLIENT_CORE, PORT (4730, first of two), as in targets.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

bennu=${BENNU:-target/release/bennu}
reference=${REFERENCE:-target/release/examples/reference}
out=${OUT:-target/bench/history-$(date -u +%Y%m%dT%H%M%SZ).jsonl}
rounds=${ROUNDS:-5}
seconds=${SECONDS_A_RUN:-4}
connections=${CONNECTIONS:-5000}
settle=${SETTLE:-10}
port=${PORT:-4730}
kept_port=$((port + 1))
source benches/lib.sh

begin "cargo build --release --bin bennu --example reference" "$reference"

# each MODE NAME/ROUND OPTIONS...: the same load in the three ways.
each() {
  local mode=$1 label=$2
  shift 2
  load none "$mode" "none-$label" "$@" --url "ws://127.0.0.1:$port/socket/websocket"
  start_kept
  load kept "$mode" "kept-$label" "$@" --url "ws://127.0.0.1:$kept_port/socket/websocket"
  start_kept
  load kept "$mode" "positions-$label" "$@" --url "ws://127.0.0.1:$kept_port/socket/websocket" --join '{"resume":true}'
}

start_none() { serve none "$port" env TOKIO_WORKER_THREADS=1 "$reference" --port "$port"; }
start_kept() { serve kept "$kept_port" env TOKIO_WORKER_THREADS=1 "$reference" --port "$kept_port" --history 'bench:*'; }

for round in $(seq "$rounds"); do
  time=(--seconds "$seconds" --warmup 1)
  start_none
  each fanout "fanout-1000x1/$round" -s 1000 -d 1 "${time[@]}"
  start_none
  each fanout "fanout-1000x8/$round" -s 1000 -d 8 "${time[@]}"
  start_none
  each idle "idle/$round" -c "$connections" --settle "$settle"
done

python3 - "$out" <<'PYTHON'
import json, statistics, sys

runs = {}
for line in open(sys.argv[1]):
    run = json.loads(line)
    kind, rest = run["label"].split("-", 1)
    load, number = rest.rsplit("/", 1)
    server = run["server"]
    for figure in ("cpu_us_per_unit", "rss_bytes_per_unit"):
        if server.get(figure) is not None:
            runs.setdefault((load, figure), {}).setdefault(number, {})[kind] = server[figure]
print("| load | figure | without | with history | with positions | history over without | positions over without |")
print("|---|---|---|---|---|---|---|")
for (load, figure), rounds in sorted(runs.items()):
    sides = [[round[kind] for round in rounds.values()] for kind in ("none", "kept", "positions")]
    medians = " | ".join(f"{statistics.median(side):.2f}" for side in sides)
    ratios = " | ".join(
        f"{statistics.median(other / none for none, other in zip(sides[0], side)):.2f}" for side in sides[1:]
    )
    print(f"| {load} | {figure} | {medians} | {ratios} |")
PYTHON
