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
server_core=${SERVER_CORE:-0}
client_core=${CLIENT_CORE:-1}
port=${PORT:-4700}
floor_port=$((port + 1))
logs=$(mktemp -d)
server='' floor=''

for binary in "$bennu" "$reference"; do
  [[ -x $binary ]] || { echo "$binary is missing: cargo build --release --bin bennu --example reference" >&2; exit 1; }
done
if [[ -e $out ]]; then
  echo "$out exists already, expected a new file" >&2
  exit 1
fi
mkdir -p "$(dirname "$out")"

stop() {
  if [[ -n $1 ]]; then
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
  fi
}
trap 'stop "$server"; stop "$floor"; rm -rf "$logs"' EXIT

# Waits until something listens on port $1; $2 is the pid of what should, $3 its log.
await_port() {
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
    kill -0 "$2" 2>/dev/null || break
    sleep 0.1
  done
  echo "nothing listens on port $1; its log:" >&2
  cat "$3" >&2
  exit 1
}

# A server of its own for each part: what one load has left in its memory is not the next one's.
start_server() {
  stop "$server"
  TOKIO_WORKER_THREADS=1 taskset -c "$server_core" "$reference" --port "$port" >"$logs/server" 2>&1 &
  server=$!
  await_port "$port" "$server" "$logs/server"
}

start_floor() {
  stop "$floor"
  taskset -c "$server_core" "$bennu" bench floor-server --port "$floor_port" >"$logs/floor" 2>&1 &
  floor=$!
  await_port "$floor_port" "$floor" "$logs/floor"
}

# load MODE LABEL OPTIONS...: one run against the reference application.
load() {
  local mode=$1 label=$2
  shift 2
  echo "+ bennu bench $mode --label $label $*"
  taskset -c "$client_core" "$bennu" bench "$mode" --url "ws://127.0.0.1:$port/socket/websocket" \
    --pid "$server" --label "$label" --json "$out" "$@"
}

# load_floor LABEL OPTIONS...: one run against the plain TCP echo.
load_floor() {
  local label=$1
  shift
  echo "+ bennu bench floor --label $label $*"
  taskset -c "$client_core" "$bennu" bench floor --address "127.0.0.1:$floor_port" \
    --pid "$floor" --label "$label" --json "$out" "$@"
}

echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), Linux $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "server on core $server_core, load on core $client_core, results in $out"

for round in $(seq "$rounds"); do
  start_server
  start_floor
  time=(--seconds "$seconds" --warmup 1)
  load_floor "floor-64x1/$round" -c 64 -d 1 "${time[@]}"
  load echo "echo-64x1/$round" -c 64 -d 1 "${time[@]}"
  load_floor "floor-64x16/$round" -c 64 -d 16 "${time[@]}"
  load echo "echo-64x16/$round" -c 64 -d 16 "${time[@]}"
  load_floor "floor-5000/$round" -c 64 --rate 5000 "${time[@]}"
  load echo "echo-5000/$round" -c 64 --rate 5000 "${time[@]}"
  load fanout "fanout-1000x1/$round" -s 1000 -d 1 "${time[@]}"
  load fanout "fanout-1000x8/$round" -s 1000 -d 8 "${time[@]}"
  load_floor "floor-connects/$round" --connects -c 16 "${time[@]}"
  load join "join/$round" -c 16 "${time[@]}"
done

for round in $(seq "$idle_rounds"); do
  start_floor
  load_floor "floor-idle/$round" --idle -c "$connections" --settle 1
  start_server
  load idle "idle/$round" -c "$connections" --further-topics "$further" --settle "$settle"
done

echo
"$bennu" bench summary "$out"
