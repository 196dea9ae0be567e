#!/usr/bin/env bash
# What does Bennu add before another MCP server? Calls a tool of an rmcp Streamable HTTP server directly and through Bennu, and a tool
# of a stdio server through Bennu and through the npm package mcp-proxy, in turns, round by round; prints absolute figures, the
# ratios, and goal by goal whether it is reached. Exits 1 if one isn't.
#
# Needs two cores: the gateways and their upstreams get one, the load the other. Build first:
#   cargo build --release --bin bennu
#   cargo build --release -p bennu-mcp-peers --bin rmcp_server
#   ./scripts/install.sh        (mcp-proxy)
#
# Settings, all from the environment:
#   BENNU, RMCP        the binaries            (target/release: bennu, rmcp_server)
#   OUT                file of JSON lines      (target/bench/gateway-DATE.jsonl)
#   ROUNDS             rounds                  (5)
#   SECONDS_A_RUN      measured window         (4)
#   SERVER_CORE, CLIENT_CORE                   (0, 1)
#   PORT               first of three ports    (4850)
set -euo pipefail
cd "$(dirname "$0")/.."

bennu=${BENNU:-target/release/bennu}
rmcp=${RMCP:-target/release/rmcp_server}
proxy=js-client/node_modules/mcp-proxy/dist/bin/mcp-proxy.mjs
out=${OUT:-target/bench/gateway-$(date -u +%Y%m%dT%H%M%SZ).jsonl}
rounds=${ROUNDS:-5}
seconds=${SECONDS_A_RUN:-4}
port=${PORT:-4850}
rmcp_port=$((port + 1))
proxy_port=$((port + 2))

source benches/lib.sh

begin "the top of this script says how to build it" "$rmcp" "$proxy"

settings=$logs/bennu.toml
cat >"$settings" <<END
[server]
listen = "127.0.0.1:$port"
workers = 1
[mcp]
runs_max = 10_000
tool_calls_per_session_max = 1_000
[mcp.servers.http]
url = "http://127.0.0.1:$rmcp_port/mcp"
[mcp.servers.stdio]
command = "$rmcp"
args = ["--stdio"]
END

for round in $(seq "$rounds"); do
  serve rmcp "$rmcp_port" env TOKIO_WORKER_THREADS=1 "$rmcp" "$rmcp_port"
  serve gateway "$port" "$bennu" serve --config "$settings"
  serve proxy "$proxy_port" node "$proxy" --port "$proxy_port" --host 127.0.0.1 --server stream -- "$rmcp" --stdio
  time=(--seconds "$seconds" --warmup 1)
  direct=(--era legacy --tool echo --url "http://127.0.0.1:$rmcp_port/mcp" "${time[@]}")
  through=(--era legacy --tool echo --url "http://127.0.0.1:$port/mcp/http" "${time[@]}")
  channel=(--url "ws://127.0.0.1:$port/socket/websocket" --topic mcp:server:http --tool echo "${time[@]}")
  stdio=(--era legacy --tool echo --url "http://127.0.0.1:$port/mcp/stdio" "${time[@]}")
  proxied=(--era legacy --tool echo --url "http://127.0.0.1:$proxy_port/mcp" "${time[@]}")
  load rmcp mcp-http "direct-1x1/$round" "${direct[@]}" -c 1 -d 1
  load gateway mcp-http "through-1x1/$round" "${through[@]}" -c 1 -d 1
  load rmcp mcp-http "direct-32x1/$round" "${direct[@]}" -c 32 -d 1
  load gateway mcp-http "through-32x1/$round" "${through[@]}" -c 32 -d 1
  load gateway mcp-call "channel-32x1/$round" "${channel[@]}" -c 32 -d 1
  load gateway mcp-http "stdio-1x1/$round" "${stdio[@]}" -c 1 -d 1
  load proxy mcp-http "proxy-1x1/$round" "${proxied[@]}" -c 1 -d 1
  load gateway mcp-http "stdio-32x1/$round" "${stdio[@]}" -c 32 -d 1
  load proxy mcp-http "proxy-32x1/$round" "${proxied[@]}" -c 32 -d 1
done

echo
"$bennu" bench summary --goals gateway "$out"
