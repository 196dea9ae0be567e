#!/usr/bin/env bash
# Does MCP reach what it is meant to? Runs the example `tools` and an rmcp Streamable HTTP server in turns, round by round, and
# prints absolute figures, the ratios, and goal by goal whether it is reached. Exits 1 if one isn't.
#
# Needs two cores: the server gets one, the load the other. Build first:
#   cargo build --release --bin bennu --example tools
#   cargo build --release -p bennu-mcp-peers --bin rmcp_server
#
# Settings, all from the environment:
#   BENNU, TOOLS, RMCP  the binaries           (target/release: bennu, examples/tools, rmcp_server)
#   OUT                file of JSON lines      (target/bench/mcp-DATE.jsonl)
#   ROUNDS             rounds of load          (5)
#   IDLE_ROUNDS        rounds of idle          (3)
#   SECONDS_A_RUN      measured window         (4)
#   CONNECTIONS        idle connections        (5000)
#   SESSIONS           idle sessions on each   (5)
#   SETTLE             seconds from the end of each step to reading memory (10)
#   SERVER_CORE, CLIENT_CORE                   (0, 1)
#   PORT               first of three ports    (4800)
set -euo pipefail
cd "$(dirname "$0")/.."

bennu=${BENNU:-target/release/bennu}
tools=${TOOLS:-target/release/examples/tools}
rmcp=${RMCP:-target/release/rmcp_server}
out=${OUT:-target/bench/mcp-$(date -u +%Y%m%dT%H%M%SZ).jsonl}
rounds=${ROUNDS:-5}
idle_rounds=${IDLE_ROUNDS:-3}
seconds=${SECONDS_A_RUN:-4}
connections=${CONNECTIONS:-5000}
sessions=${SESSIONS:-5}
settle=${SETTLE:-10}
port=${PORT:-4800}
rmcp_port=$((port + 1))
rmcp_json_port=$((port + 2))

# What the servers are started with and where they answer. rmcp is taken at its best in each era: answers as JSON are its quickest,
# and it has them without sessions only, as 2026-07-28 is.
tools_command=(env "PORT=$port" "$tools")
rmcp_command=("$rmcp" "$rmcp_port")
rmcp_json_command=("$rmcp" --stateless --json "$rmcp_json_port")
socket_url=ws://127.0.0.1:$port/socket/websocket
http_url=http://127.0.0.1:$port/mcp/demo
rmcp_url=http://127.0.0.1:$rmcp_port/mcp
rmcp_json_url=http://127.0.0.1:$rmcp_json_port/mcp
mcp_topic=mcp:server:demo
mcp_tool=echo
plain_topic_prefix=room:bench-
plain_event=echo

source benches/lib.sh

start_server() { serve server "$port" env TOKIO_WORKER_THREADS=1 "${tools_command[@]}"; }

begin "the top of this script says how to build it" "$tools" "$rmcp"

for round in $(seq "$rounds"); do
  start_server
  serve rmcp "$rmcp_port" env TOKIO_WORKER_THREADS=1 "${rmcp_command[@]}"
  serve rmcp-json "$rmcp_json_port" env TOKIO_WORKER_THREADS=1 "${rmcp_json_command[@]}"
  time=(--seconds "$seconds" --warmup 1)
  plain=(--url "$socket_url" --topic-prefix "$plain_topic_prefix" --event "$plain_event")
  call=(--url "$socket_url" --topic "$mcp_topic" --tool "$mcp_tool")
  load server echo "echo-64x1/$round" "${plain[@]}" -c 64 -d 1 "${time[@]}"
  load server mcp-call "call-64x1/$round" "${call[@]}" -c 64 -d 1 "${time[@]}"
  load server mcp-call "call-modern-64x1/$round" "${call[@]}" --era modern -c 64 -d 1 "${time[@]}"
  load server mcp-call "call-64x16/$round" "${call[@]}" -c 64 -d 16 "${time[@]}"
  http=(--tool "$mcp_tool" -c 64 -d 1 "${time[@]}")
  load server mcp-http "http-legacy-64x1/$round" --url "$http_url" --era legacy "${http[@]}"
  load rmcp mcp-http "rmcp-legacy-64x1/$round" --url "$rmcp_url" --era legacy "${http[@]}"
  load server mcp-http "http-modern-64x1/$round" --url "$http_url" --era modern "${http[@]}"
  load rmcp-json mcp-http "rmcp-modern-64x1/$round" --url "$rmcp_json_url" --era modern "${http[@]}"
done

for round in $(seq "$idle_rounds"); do
  start_server
  load server mcp-idle "idle/$round" --url "$socket_url" --topic "$mcp_topic:{n}" \
    -c "$connections" --topics-a-connection "$sessions" --settle "$settle"
done

echo
"$bennu" bench summary --goals mcp "$out"
