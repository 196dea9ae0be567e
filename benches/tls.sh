#!/usr/bin/env bash
# What does TLS cost? Runs Bennu's reference application without TLS and with it in turns, round by round, and prints for each load
# the medians and the median of the rounds' ratios.
#
# Needs two cores and openssl. Build first:
#   cargo build --release --bin bennu --example reference
#
# Settings, all from the environment: BENNU, REFERENCE, OUT, ROUNDS (5), SECONDS_A_RUN (4), CONNECTIONS (5000), SETTLE (10),
# SERVER_CORE, CLIENT_CORE, PORT (4720, first of two), as in targets.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

bennu=${BENNU:-target/release/bennu}
reference=${REFERENCE:-target/release/examples/reference}
out=${OUT:-target/bench/tls-$(date -u +%Y%m%dT%H%M%SZ).jsonl}
rounds=${ROUNDS:-5}
seconds=${SECONDS_A_RUN:-4}
connections=${CONNECTIONS:-5000}
settle=${SETTLE:-10}
port=${PORT:-4720}
secure_port=$((port + 1))
source benches/lib.sh

begin "cargo build --release --bin bennu --example reference" "$reference"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1 \
  -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
  -keyout "$logs/key.pem" -out "$logs/chain.pem" 2>/dev/null
tls=(--tls-certificate "$logs/chain.pem" --tls-key "$logs/key.pem")

# both MODE NAME/ROUND OPTIONS...: the same load without TLS and with it.
both() {
  local mode=$1 label=$2
  shift 2
  load plain "$mode" "plain-$label" "$@" --url "ws://127.0.0.1:$port/socket/websocket"
  load secure "$mode" "tls-$label" "$@" --url "wss://127.0.0.1:$secure_port/socket/websocket" --trusted "$logs/chain.pem"
}

start() {
  serve plain "$port" env TOKIO_WORKER_THREADS=1 "$reference" --port "$port"
  serve secure "$secure_port" env TOKIO_WORKER_THREADS=1 "$reference" --port "$secure_port" "${tls[@]}"
}

for round in $(seq "$rounds"); do
  start
  time=(--seconds "$seconds" --warmup 1)
  both echo "echo-64x1/$round" -c 64 -d 1 "${time[@]}"
  both echo "echo-64x16/$round" -c 64 -d 16 "${time[@]}"
  both fanout "fanout-1000x1/$round" -s 1000 -d 1 "${time[@]}"
  both fanout "fanout-1000x8/$round" -s 1000 -d 8 "${time[@]}"
  both join "join/$round" -c 16 "${time[@]}"
  start
  both idle "idle/$round" -c "$connections" --settle "$settle"
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
print("| load | figure | plain | TLS | TLS over plain | least to most |\n|---|---|---|---|---|---|")
for (load, figure), rounds in sorted(runs.items()):
    pairs = [(pair["plain"], pair["tls"]) for pair in rounds.values()]
    plain, tls = (statistics.median(side) for side in zip(*pairs))
    ratios = [tls / plain for plain, tls in pairs]
    cells = f"{plain:.2f} | {tls:.2f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f}"
    print(f"| {load} | {figure} | {cells} |")
PYTHON
