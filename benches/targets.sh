#!/usr/bin/env bash
# Does the hot path reach what it is meant to? Runs Bennu's reference application and a plain TCP echo in turns, round by round,
# and prints absolute figures, the ratios, and goal by goal whether it is reached. Exits 1 if one isn't.
#
# Needs two cores: the server gets one, the load the other. Build first:
#   cargo build --release --bin bennu --example reference
#
# Settings, all from the environment:
#   BENNU, REFERENCE   the binaries            (target/release/bennu, target/release/examples/reference)
#   OUT                file of JSON lines      (target/bench/targets-DATE.jsonl)
#   ROUNDS             rounds of load          (5)
#   IDLE_ROUNDS        rounds of idle          (3)
#   SECONDS_A_RUN      measured window         (4)
#   CONNECTIONS        idle connections        (10000)
#   FURTHER            further channels each   (5)
#   SETTLE             seconds from last join to reading memory (10)
#   SERVER_CORE, CLIENT_CORE                   (0, 1)
#   PORT               first of two ports      (4700)
set -euo pipefail
cd "$(dirname "$0")/.."

bennu=${BENNU:-target/release/bennu}
reference=${REFERENCE:-target/release/examples/reference}
out=${OUT:-target/bench/targets-$(date -u +%Y%m%dT%H%M%SZ).jsonl}
rounds=${ROUNDS:-5}
idle_rounds=${IDLE_ROUNDS:-3}
seconds=${SECONDS_A_RUN:-4}
connections=${CONNECTIONS:-10000}
further=${FURTHER:-5}
settle=${SETTLE:-10}
port=${PORT:-4700}
floor_port=$((port + 1))
source benches/lib.sh

start_server() { serve server "$port" env TOKIO_WORKER_THREADS=1 "$reference" --port "$port"; }
start_floor() { serve floor "$floor_port" "$bennu" bench floor-server --port "$floor_port"; }

# on_server MODE LABEL OPTIONS...: one run against the reference application.
on_server() { load server "$@" --url "ws://127.0.0.1:$port/socket/websocket"; }

# on_floor LABEL OPTIONS...: one run against the plain TCP echo.
on_floor() { load floor floor "$@" --address "127.0.0.1:$floor_port"; }

begin "cargo build --release --bin bennu --example reference" "$reference"

for round in $(seq "$rounds"); do
  start_server
  start_floor
  time=(--seconds "$seconds" --warmup 1)
  on_floor "floor-64x1/$round" -c 64 -d 1 "${time[@]}"
  on_server echo "echo-64x1/$round" -c 64 -d 1 "${time[@]}"
  on_floor "floor-64x16/$round" -c 64 -d 16 "${time[@]}"
  on_server echo "echo-64x16/$round" -c 64 -d 16 "${time[@]}"
  on_floor "floor-5000/$round" -c 64 --rate 5000 "${time[@]}"
  on_server echo "echo-5000/$round" -c 64 --rate 5000 "${time[@]}"
  on_server fanout "fanout-1000x1/$round" -s 1000 -d 1 "${time[@]}"
  on_server fanout "fanout-1000x8/$round" -s 1000 -d 8 "${time[@]}"
  on_floor "floor-connects/$round" --connects -c 16 "${time[@]}"
  on_server join "join/$round" -c 16 "${time[@]}"
done

for round in $(seq "$idle_rounds"); do
  start_floor
  on_floor "floor-idle/$round" --idle -c "$connections" --settle 1
  start_server
  on_server idle "idle/$round" -c "$connections" --further-topics "$further" --settle "$settle"
done

echo
"$bennu" bench summary "$out"
