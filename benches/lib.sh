# What the scripts beside it share; they are the ones to run. Before it is read, `bennu` is the load tool and `out` the file of
# results.

server_core=${SERVER_CORE:-0}
client_core=${CLIENT_CORE:-1}
logs=$(mktemp -d)
# The servers that run, by name.
declare -A pids=()

stop() {
  local pid=${pids[$1]:-}
  if [[ -n $pid ]]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    unset "pids[$1]"
  fi
}
trap 'for name in "${!pids[@]}"; do stop "$name"; done; rm -rf "$logs"' EXIT

# begin HOW BINARY...: says on what machine this is; ends where a binary is missing (HOW says how to build it) or the results have
# a file already.
begin() {
  local how=$1 binary
  shift
  for binary in "$bennu" "$@"; do
    [[ -x $binary ]] || { echo "$binary is missing: $how" >&2; exit 1; }
  done
  if [[ -e $out ]]; then
    echo "$out exists already, expected a new file" >&2
    exit 1
  fi
  mkdir -p "$(dirname "$out")"
  echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), Linux $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg)"
  echo "server on core $server_core, load on core $client_core, results in $out"
}

# serve NAME PORT COMMAND...: starts a server anew, for what one load has left in its memory is not the next one's, and waits until
# it listens.
serve() {
  local name=$1 port=$2
  shift 2
  stop "$name"
  taskset -c "$server_core" "$@" >"$logs/$name" 2>&1 &
  pids[$name]=$!
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    kill -0 "${pids[$name]}" 2>/dev/null || break
    sleep 0.1
  done
  echo "nothing listens on port $port; its log:" >&2
  cat "$logs/$name" >&2
  exit 1
}

# load NAME MODE LABEL OPTIONS...: one run against the server of that name.
load() {
  local name=$1 mode=$2 label=$3
  shift 3
  echo "+ bennu bench $mode --label $label $*"
  taskset -c "$client_core" "$bennu" bench "$mode" --pid "${pids[$name]}" --label "$label" --json "$out" "$@"
}
