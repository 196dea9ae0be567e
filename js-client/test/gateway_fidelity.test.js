// What an MCP server says reaches a client of the gateway byte by byte, and what the client says the server: the same requests to
// the same server directly, and the texts compared.

import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdir, realpath, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { makeFolder, startGateway } from "./support/gateway/server.js"
import { idOf, startDirect, WAYS, withoutId, withoutTokens } from "./support/gateway/texts.js"
import * as upstreams from "./support/upstreams.js"

const ONE_TEST = { timeout: 30_000 }
/** Whoever can be asked has a process of its own, which gets its handshake as it is. */
const CAPABILITIES = '{"sampling":{ "x-odd":1e2},"elicitation":{"form":{}}, "experimental":{"caf\\u00e9":{"one":1.0}}}'
const CLIENT = '{"version":"1.0","x-odd":12345678901234567890123, "name":"caf\\u00e9 \\/"}'
const INITIALIZE = `{"method":"initialize", "params":{"clientInfo":${CLIENT},"capabilities":${CAPABILITIES} ,"protocolVersion":"2025-06-18"},"id":"hello \\u00e9\\/","jsonrpc":"2.0"}`
const INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}'
const STATELESS = `"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol\\/clientCapabilities":${CAPABILITIES},"io.modelcontextprotocol/clientInfo":${CLIENT},"io.modelcontextprotocol/logLevel":"debug"`

/** Each as nobody else would spell it. `#` stands for the next id, `@` for a token. */
const call = (name, members = "{}", token = "@") =>
  `{ "params":{"arguments":${members} , "_meta":{"x-odd":1.0,"progressToken":${token}},"name":"${name}"},"method":"tools\\/call","id":#, "jsonrpc":"2.0"}`
const ask = (method, members = "") => `{"jsonrpc":"2.0","id":#,"method":"${method}","params":{${members}}}`

const LISTS = ["tools/list", "resources/list", "resources/templates/list", "prompts/list"].map((method) => ask(method))
const COMMON = [...LISTS, ask("vendor/nobody.knows", '"zeta":1e2,"alpha":1.0'), call("no such tool"), ask("prompts/get", '"name":"no such prompt"')]

/** Every other id is a text that nobody else would spell so. */
const numbered = (requests) =>
  requests.map((request, at) => request.replace("@", `${at}`).replace('"id":#', `"id":${at % 2 ? `"${at} caf\\u00e9 \\/ \\"x\\""` : at}`))

const ODD = [
  ...COMMON,
  ask("tools/list", '"cursor":"page \\"2\\" \\u00e9\\/"'),
  ask("tools/list", '"cursor":"no such page"'),
  call("echo_raw", '{"zeta":12345678901234567890123,"alpha":[ 1e2,1.0,-0.0 ],"s":"\\/\\u00e9\\ud83d\\ude00","alpha":null}'),
  call("echo_raw", '{\n  "lines": [\n    1.0\n  ]\n}'),
  call("progress", '{"count":5}'),
  call("log", '{"level":"error","count":3}'),
  call("fail_rpc"),
  call("fail_tool"),
  call("interleave"),
  call("garbage"),
  call("oversize", '{"bytes":200000}'),
  call("odd name/é"),
  ask("resources/read", '"uri":"odd:\\/\\/one"'),
  ask("resources/read", '"uri":"odd://caf%C3%A9"'),
  ask("resources/read", '"uri":"odd://item/7"'),
  ask("resources/read", '"uri":"odd://nothing"'),
  ask("prompts/get", '"arguments":{"text":"\\u00e9\\/"} ,"name":"odd_prompt"'),
  ask("completion/complete", '"ref":{"type":"ref/prompt","name":"odd_prompt"},"argument":{"name":"text","value":"a"}'),
]

const folders = {}
let made
let gateway
let scripts
before(async () => {
  made = await makeFolder()
  const folder = await realpath(made.folder)
  for (const name of ["files", "repository"]) {
    folders[name] = join(folder, name)
    await mkdir(folders[name])
  }
  const repository = folders.repository
  const git = (...args) => execFileSync("git", args, { cwd: repository, stdio: "ignore" })
  git("init", "-q", "-b", "main")
  git("config", "user.name", "Ada")
  git("config", "user.email", "ada@example.com")
  await writeFile(join(repository, "a.txt"), "grüße\n")
  git("add", ".")
  git("commit", "-q", "-m", "first")
  await writeFile(join(repository, "a.txt"), "changed\n")

  const memory = join(folder, "memory.json")
  const upstream = {
    everything: upstreams.everything(),
    files: upstreams.filesystem(folders.files),
    memory: upstreams.memory(memory),
    time: upstreams.time(),
    git: upstreams.git(repository),
    odd: upstreams.odd(),
  }
  gateway = await startGateway(upstream)
  const path = JSON.stringify(join(folders.files, "a.txt"))
  const at = JSON.stringify(repository)
  scripts = {
    everything: {
      upstream: upstream.everything,
      requests: [
        ...COMMON,
        ask("logging/setLevel", '"level":"debug"'),
        call("echo", '{"message":"gr\\u00fc\\u00dfe \\u2028"}'),
        call("echo", '{"message":7}'),
        call("get-sum", '{"a":1e2,"b":0.5}'),
        call("get-structured-content", '{"location":"Chicago"}'),
        call("get-tiny-image"),
        call("get-annotated-message", '{"messageType":"error","includeImage":true}'),
        call("get-resource-links", '{"count":3}'),
        call("trigger-long-running-operation", '{"duration":0.1,"steps":4}'),
        ask("resources/read", '"uri":"demo://resource/static/document/features.md"'),
        ask("resources/read", '"uri":"demo://nothing"'),
        ask("resources/subscribe", '"uri":"demo://resource/static/document/features.md"'),
        ask("prompts/get", '"name":"args-prompt","arguments":{"city":"Paris"}'),
        ask("prompts/get", '"name":"resource-prompt","arguments":{}'),
        ask("completion/complete", '"ref":{"type":"ref/prompt","name":"completable-prompt"},"argument":{"name":"department","value":"S"}'),
        ask("tasks/get", '"taskId":"none"'),
        ask("tasks/list"),
      ],
    },
    files: {
      upstream: upstream.files,
      requests: [
        ...COMMON,
        call("write_file", `{"path":${path},"content":"gr\\u00fc\\u00dfe \\u2028\\n"}`),
        call("read_text_file", `{"path":${path}}`),
        call("edit_file", `{"path":${path},"edits":[{"oldText":"gr","newText":"GR"}],"dryRun":true}`),
        call("list_directory", `{"path":${JSON.stringify(folders.files)}}`),
        call("directory_tree", `{"path":${JSON.stringify(folders.files)}}`),
        call("list_allowed_directories"),
        call("read_text_file", '{"path":"/etc/passwd"}'),
        call("read_text_file", "{}"),
      ],
    },
    memory: {
      upstream: upstream.memory,
      requests: [
        ...COMMON,
        call("delete_entities", '{"entityNames":["Ada"]}'),
        call("create_entities", '{"entities":[{"name":"Ada","entityType":"person","observations":["gr\\u00fc\\u00dfe \\u2028"]}]}'),
        call("add_observations", '{"observations":[{"entityName":"nobody","contents":["x"]}]}'),
        call("read_graph"),
        call("search_nodes", '{"query":"Ada"}'),
        ask("resources/read", '"uri":"memory://knowledge-graph"'),
      ],
    },
    time: {
      upstream: upstream.time,
      requests: [
        ...COMMON,
        call("convert_time", '{"source_timezone":"UTC","time":"12:00","target_timezone":"Asia/Tokyo"}'),
        call("convert_time", '{"source_timezone":"Nowhere","time":"12:00","target_timezone":"UTC"}'),
        call("convert_time", "{}"),
      ],
    },
    git: {
      upstream: upstream.git,
      requests: [
        ...COMMON,
        call("git_status", `{"repo_path":${at}}`),
        call("git_log", `{"repo_path":${at}}`),
        call("git_diff_unstaged", `{"repo_path":${at}}`),
        call("git_show", `{"repo_path":${at},"revision":"HEAD"}`),
        call("git_show", `{"repo_path":${at},"revision":"nothing"}`),
        call("git_status", '{"repo_path":"/"}'),
      ],
    },
    odd: { upstream: upstream.odd, requests: ODD },
  }
})
after(async () => {
  await gateway?.close()
  await made?.close()
})

/** A request with the `_meta` of 2026-07-28. */
const stateless = (request) =>
  request.includes('"_meta":{')
    ? request.replace('"_meta":{', `"_meta":{${STATELESS},`)
    : request.replace(/"params":{(.*)}}$/, (_, members) => `"params":{"_meta":{${STATELESS}}${members && `,${members}`}}}`)

/** Not caused by what is asked: over HTTP it has a stream of its own. */
const isUnasked = (text) => JSON.parse(text).method?.endsWith("list_changed") ?? false

/** What comes of each request, one after the other: the answer and what stood before it, and the answer's id. */
async function tell(peer, requests) {
  const all = []
  for (const request of requests) {
    const texts = (await peer.ask(request)).filter((text) => !isUnasked(text))
    const answer = texts.pop()
    all.push({ id: idOf(answer), texts: [...texts, withoutId(withoutTokens(answer))] })
    if (request === INITIALIZE) await peer.send(INITIALIZED)
  }
  return all
}

const told = new Map()

/** What a server itself says to requests, which are asked once. */
function toldDirectly(t, name, era, requests) {
  const key = `${name} ${era}`
  if (!told.has(key)) told.set(key, tell(startDirect(t, scripts[name].upstream), requests))
  return told.get(key)
}

/** Has the same requests told directly and by the gateway. Servers may spell ids anew; the gateway's are the client's own. */
async function compare(t, way, name, era, requests) {
  const telling = toldDirectly(t, name, era, requests)
  const peer = await WAYS[way](t, gateway, name)
  // Both processes start at once; then one after the other does what it is asked.
  const [opened] = await tell(peer, requests.slice(0, 1))
  const expected = await telling
  const actual = [opened, ...(await tell(peer, requests.slice(1)))]
  for (const [at, request] of requests.entries()) {
    assert.deepEqual(actual[at].texts, expected[at].texts, request)
    assert.equal(actual[at].id, idOf(request))
  }
}

for (const way of Object.keys(WAYS)) {
  describe(`over ${way}`, () => {
    for (const name of ["everything", "files", "memory", "time", "git", "odd"]) {
      test(`${name}, legacy, is passed on byte by byte`, ONE_TEST, (t) =>
        compare(t, way, name, "legacy", [INITIALIZE, ...numbered(scripts[name].requests)]))
    }

    for (const name of ["time", "git", "odd"]) {
      test(`${name}, 2026-07-28, is passed on byte by byte`, ONE_TEST, (t) =>
        compare(t, way, name, "stateless", numbered([ask("server/discover"), ...scripts[name].requests].map(stateless))))
    }
  })
}
