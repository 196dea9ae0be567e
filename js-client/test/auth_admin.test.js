// The operator's side: revocations, the interface below /admin/api, the audit log, MCP over HTTP's challenges, and no secret in any log.

import assert from "node:assert/strict"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { LongPoll } from "phoenix"
import WebSocket from "ws"

import { inSeconds, jwt, tampered } from "./support/credentials.js"
import { CLIENT_INFO, connect, joinTopic, openSession, Rpc, startProduction } from "./support/production.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }
const JWT_SECRET = "a secret of JSON web tokens, of forty bytes"
const RESOURCE = "https://mcp.example.com/mcp"
const STATELESS = "2026-07-28"

const ofJwt = (claims) => jwt({ sub: "ada", exp: inSeconds(3_600), roles: ["user"], aud: RESOURCE, ...claims }, { secret: JWT_SECRET })

const SETTINGS = {
  jwt: { algorithms: ["HS256"], secret: JWT_SECRET, leeway_s: 0 },
  oauth: { resource: RESOURCE, authorization_servers: ["https://issuer.example.com"], scopes: ["tools:list", "tools:call"] },
  auth: { sessions_per_user_max: 0 },
}
const KEYS = {
  admin: { user: "root", roles: ["admin"] },
  ada: { user: "ada", roles: ["user"] },
  bob: { user: "bob", roles: ["user"] },
  lists: { user: "lists", scopes: ["tools:list", "servers:use:*"] },
  nowhere: { user: "nowhere", scopes: ["tools:list", "!servers:use:bennu"] },
  keeper: { user: "keeper", scopes: ["admin:keys"] },
  auditor: { user: "auditor", scopes: ["admin:audit"] },
  power: { user: "power", roles: ["power_user"] },
}

let server
before(async () => {
  server = await startProduction({ settings: SETTINGS, keys: KEYS })
})
after(() => server?.close())

/** A plain WebSocket; `closed` is its close code, once it has one. */
async function plain(t, params, at = server) {
  const socket = new WebSocket(`${at.endpoint}/websocket?vsn=2.0.0&${new URLSearchParams(params)}`)
  finallyDo(t, () => socket.terminate())
  const closed = new Promise((resolve) => socket.once("close", resolve))
  const outcome = await new Promise((resolve) => {
    socket.once("open", () => resolve("open"))
    socket.on("error", () => resolve("refused"))
  })
  return { socket, closed, outcome }
}

const headersOf = (credential, others = {}) => ({
  "content-type": "application/json",
  accept: "application/json, text/event-stream",
  ...(credential && { authorization: `Bearer ${credential}` }),
  ...others,
})
const post = (credential, message, headers, { at = server, query = "" } = {}) =>
  fetch(`${at.origin}/mcp${query}`, { method: "POST", headers: headersOf(credential, headers), body: JSON.stringify(message) })
const INTRODUCTION = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: CLIENT_INFO }
const INITIALIZE = { jsonrpc: "2.0", id: 1, method: "initialize", params: INTRODUCTION }
const stateless = (method, params = {}) => [
  {
    jsonrpc: "2.0",
    id: 1,
    method,
    params: {
      ...params,
      _meta: {
        "io.modelcontextprotocol/protocolVersion": STATELESS,
        "io.modelcontextprotocol/clientInfo": CLIENT_INFO,
        "io.modelcontextprotocol/clientCapabilities": {},
      },
    },
  },
  { "mcp-protocol-version": STATELESS, "mcp-method": method, ...(params.name && { "mcp-name": params.name }) },
]

describe("a revocation", () => {
  for (const [by, revoke] of [
    ["the operator's interface", (key) => server.admin("DELETE", `keys/${key.id}`)],
    ["the command", (key) => server.cli("keys", "revoke", key.id)],
  ]) {
    test(`of a key by ${by} closes what came by it with 1001, and lets it in no more`, ONE_TEST, async (t) => {
      const key = await server.createKey({ user: "ada", roles: ["user"] })
      const bare = await plain(t, { api_key: key.text })
      const other = await plain(t, { api_key: server.keys.ada.text })
      const joined = await connect(t, server, { params: { api_key: server.keys.bob.text } })
      await joinTopic(joined.socket, "mcp:session", { clientInfo: CLIENT_INFO, apiKey: key.text })
      const codes = []
      joined.socket.onClose(({ code }) => codes.push(code))

      const done = await revoke(key)

      assert.deepEqual([done.code ?? 0, done.stderr ?? ""], [0, ""])
      assert.equal(await bare.closed, 1001)
      await until(() => codes.length > 0, "the end of the socket that has a channel by the key")
      assert.equal(codes[0], 1001)
      assert.equal((await plain(t, { api_key: key.text })).outcome, "refused")
      assert.equal(other.socket.readyState, WebSocket.OPEN, "the same user's other key goes on")
    })
  }

  test("of a key ends long-poll sessions", ONE_TEST, async (t) => {
    const key = await server.createKey({ user: "ada", roles: ["user"] })
    const { socket } = await connect(t, server, { params: { api_key: key.text }, transport: LongPoll })
    let closes = 0
    socket.onClose(() => (closes += 1))

    await server.admin("DELETE", `keys/${key.id}`)

    await until(() => closes > 0, "the end of the session")
    await until(() => !socket.isConnected())
  })

  test("of a key ends streams over HTTP", ONE_TEST, async () => {
    const key = await server.createKey({ user: "ada", roles: ["user"] })
    const opened = await post(key.text, INITIALIZE)
    const session = { "mcp-session-id": opened.headers.get("mcp-session-id"), "mcp-protocol-version": "2025-11-25" }
    await opened.text()
    await post(key.text, { jsonrpc: "2.0", method: "notifications/initialized" }, session)
    const stream = await fetch(`${server.origin}/mcp`, { headers: headersOf(key.text, session) })
    assert.equal(stream.status, 200)
    const reader = stream.body.getReader()
    const ended = (async () => {
      while (!(await reader.read()).done);
      return "ended"
    })().catch(() => "ended")

    await server.admin("DELETE", `keys/${key.id}`)

    assert.equal((await post(key.text, { jsonrpc: "2.0", id: 2, method: "ping" }, session)).status, 401)
    const outcome = await Promise.race([ended, new Promise((resolve) => setTimeout(() => resolve("it goes on"), 2_000))])
    await reader.cancel().catch(() => {})
    assert.equal(outcome, "ended")
  })

  test("of a user closes all that is theirs, by whatever they came", ONE_TEST, async (t) => {
    const open = [
      await plain(t, { api_key: server.keys.bob.text }),
      await plain(t, { token: server.userToken("bob") }),
      await plain(t, { token: ofJwt({ sub: "bob" }) }),
    ]
    const other = await plain(t, { token: server.userToken("ada") })

    const { body } = await server.admin("POST", "revoke", { user: "bob" })

    assert.deepEqual(await Promise.all(open.map(({ closed }) => closed)), [1001, 1001, 1001])
    assert.equal(typeof body.closed, "number")
    assert.equal(other.socket.readyState, WebSocket.OPEN)
  })

  test("of a session closes what came by its token, and its own client", ONE_TEST, async (t) => {
    const session = await openSession(t, server, server.keys.ada)
    const { socket: second } = await connect(t, server, { params: { api_key: server.keys.bob.text } })
    assert.equal((await joinTopic(second, "mcp:runs", { token: session.reply.sessionToken })).reason, undefined)
    const closed = { own: [], second: [] }
    session.socket.onClose(({ code }) => closed.own.push(code))
    second.onClose(({ code }) => closed.second.push(code))
    const { body } = await server.admin("GET", "sessions?user=ada")
    const { id } = body.sessions.at(-1)
    assert.doesNotMatch(JSON.stringify(body), /SFMyNTY/, "its token is not told")

    const revoked = await server.admin("POST", "revoke", { session: id })

    assert.equal(revoked.status, 200)
    assert.equal((await joinTopic(session.socket, "mcp:runs", { token: session.reply.sessionToken })).reason, "Token revoked")
    await until(() => closed.second.length > 0, `the end of who came by its token: ${JSON.stringify(revoked.body)}`, 2_000)
    await until(() => closed.own.length > 0, "the end of its own client", 2_000)
    assert.equal((await server.admin("POST", "revoke", { session: id })).status, 404)
  })

  test("of a JWT by its jti closes what came by it, and lets it in no more, after a restart either", ONE_TEST, async (t) => {
    const own = await startProduction({ settings: SETTINGS })
    finallyDo(t, () => own.close())
    const [bad, good] = [ofJwt({ jti: "one" }), ofJwt({ jti: "two" })]
    const open = await plain(t, { token: bad }, own)
    const other = await plain(t, { token: good }, own)

    await own.admin("POST", "revoke", { credential: "jwt:one" })

    assert.equal(await open.closed, 1001)
    assert.equal(other.socket.readyState, WebSocket.OPEN)
    const outcomes = async () => [(await plain(t, { token: bad }, own)).outcome, (await plain(t, { token: good }, own)).outcome]
    assert.deepEqual(await outcomes(), ["refused", "open"])
    await own.process.restart()
    assert.deepEqual(await outcomes(), ["refused", "open"])
  })
})

describe("MCP over HTTP", () => {
  const metadata = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
  const challenge = (response) => response.headers.get("www-authenticate")

  test("challenges whoever brings nothing, or something bad", ONE_TEST, async () => {
    const nothing = await post(undefined, INITIALIZE)
    assert.equal(nothing.status, 401)
    assert.equal(challenge(nothing), `Bearer resource_metadata="${metadata}", scope="tools:list tools:call"`)

    const bad = {
      "a word": "bad",
      "a tampered key": tampered(server.keys.ada.text),
      "a JWT that is over": ofJwt({ exp: inSeconds(-1) }),
      "a JWT for others": ofJwt({ aud: "https://other.example.com/mcp" }),
      "a JWT for nobody": ofJwt({ aud: undefined }),
      "a socket's token": server.userToken("ada"),
      "an operator's token": server.operatorToken(),
    }
    for (const [what, credential] of Object.entries(bad)) {
      const refused = await post(credential, INITIALIZE)
      assert.equal(refused.status, 401, what)
      assert.match(challenge(refused), /^Bearer .*\berror="invalid_token"/, what)
      assert.ok(challenge(refused).includes(`resource_metadata="${metadata}"`), challenge(refused))
    }
  })

  test("lets in by an API key, a JWT for it, a token of MCP and one of a session", ONE_TEST, async (t) => {
    const session = await openSession(t, server, server.keys.ada)
    const ofMcp = server.mcpToken({ user_id: "ada" })
    const good = [server.keys.ada.text, ofJwt(), ofJwt({ aud: ["x", RESOURCE] }), ofMcp, session.reply.sessionToken]

    for (const credential of good) {
      const opened = await post(credential, INITIALIZE)
      assert.equal(opened.status, 200, await opened.text())
      assert.equal(challenge(opened), null)
    }
    assert.equal((await post(undefined, INITIALIZE, { authorization: `bearer ${server.keys.ada.text}` })).status, 200)
    const inQuery = await post(undefined, INITIALIZE, {}, { query: `?access_token=${ofJwt()}` })
    assert.equal(inQuery.status, 401, "a token in the query is none")
  })

  test("says which scope is missing", ONE_TEST, async () => {
    const [message, headers] = stateless("tools/call", { name: "stream_hash", arguments: { bytes: 8 } })

    const refused = await post(server.keys.lists.text, message, headers)

    assert.equal(refused.status, 403)
    assert.match(challenge(refused), /error="insufficient_scope"/)
    assert.match(challenge(refused), /scope="tools:call"/)
    assert.equal((await refused.json()).error.message, "Unauthorized: Missing capability: tools:call")
    const nowhere = await post(server.keys.nowhere.text, ...stateless("tools/list"))
    assert.equal(nowhere.status, 403)
    assert.match(challenge(nowhere) ?? "no challenge", /error="insufficient_scope"/)
  })

  test("describes itself as a protected resource, to pages of any origin", ONE_TEST, async () => {
    for (const path of ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"]) {
      const response = await fetch(`${server.origin}${path}`, { headers: { origin: "https://page.example.com" } })

      assert.equal(response.status, 200)
      assert.equal(response.headers.get("access-control-allow-origin"), "*")
      const { resource, authorization_servers, scopes_supported, bearer_methods_supported } = await response.json()
      assert.deepEqual([resource, authorization_servers], [RESOURCE, ["https://issuer.example.com"]])
      assert.deepEqual([scopes_supported, bearer_methods_supported], [["tools:list", "tools:call"], ["header"]])
    }
    assert.equal((await fetch(`${server.origin}/.well-known/oauth-protected-resource/other`)).status, 404)
  })

  test("lets pages of its own origin read answers and challenges, and no others", ONE_TEST, async () => {
    const own = await post(undefined, INITIALIZE, { origin: server.origin })
    assert.equal(own.status, 401)
    assert.equal(own.headers.get("access-control-allow-origin"), server.origin)
    assert.match(own.headers.get("access-control-expose-headers"), /WWW-Authenticate/)
    assert.equal(own.headers.get("access-control-allow-credentials"), null)

    const other = await post(server.keys.ada.text, INITIALIZE, { origin: "https://evil.example.com" })
    assert.equal(other.status, 403)
    assert.equal(other.headers.get("access-control-allow-origin"), null)

    const asked = { origin: server.origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization" }
    const preflight = await fetch(`${server.origin}/mcp`, { method: "OPTIONS", headers: asked })
    assert.equal(preflight.status, 204)
    assert.equal(preflight.headers.get("access-control-allow-headers"), "authorization")
  })

  test("keeps a session for the user who opened it", ONE_TEST, async () => {
    const opened = await post(server.keys.ada.text, INITIALIZE)
    const session = { "mcp-session-id": opened.headers.get("mcp-session-id"), "mcp-protocol-version": "2025-11-25" }
    const ping = { jsonrpc: "2.0", id: 2, method: "ping" }

    assert.equal((await post(server.keys.ada.text, ping, session)).status, 200)
    assert.equal((await post(ofJwt(), ping, session)).status, 200, "the same user by another credential")
    assert.equal((await post(server.keys.bob.text, ping, session)).status, 404)
    assert.equal((await post(undefined, ping, session)).status, 401)
  })
})

describe("the operator's interface", () => {
  test("is for those who may, with the capability of each path", ONE_TEST, async () => {
    const paths = [
      ["GET", "keys", "admin:keys"],
      ["POST", "keys", "admin:keys", { user: "keeper", scopes: ["admin:keys"] }],
      ["DELETE", "keys/no", "admin:keys"],
      ["GET", "sessions?user=ada", "admin:sessions"],
      ["GET", "mcp/sessions?user=ada", "admin:sessions"],
      ["GET", "mcp/stats", "admin:sessions"],
      ["POST", "revoke", "admin:sessions", { user: "nobody" }],
      ["GET", "audit?limit=1", "admin:audit"],
      ["GET", "security", "admin:stats"],
    ]
    for (const [method, path, capability, body] of paths) {
      for (const name of ["ada", "power", "keeper", "auditor"]) {
        const { status, body: answer } = await server.admin(method, path, body, { credential: server.keys[name].text })
        if (KEYS[name].scopes?.includes(capability)) assert.ok([200, 404].includes(status), `${name} ${path}: ${status}`)
        else assert.deepEqual([status, answer], [403, { errors: { detail: `Missing capability: ${capability}` } }], `${name} ${path}`)
      }
      assert.notEqual((await server.admin(method, path, body, { credential: server.keys.admin.text })).status, 403)
      for (const credential of ["", "bad", server.userToken("root"), server.mcpToken({ user_id: "root", role: "admin" })]) {
        const refused = await server.admin(method, path, body, { credential })
        assert.equal(refused.status, 401, path)
        assert.match(refused.headers.get("www-authenticate"), /^Bearer/)
      }
    }
    assert.equal((await server.admin("GET", "security", undefined, { credential: ofJwt({ sub: "boss", roles: ["admin"] }) })).status, 200)
    assert.equal((await server.admin("PUT", "keys")).status, 405)
    assert.equal((await server.admin("GET", "nothing")).status, 404)
  })

  test("makes, lists and revokes keys, and shows a key's text once", ONE_TEST, async (t) => {
    const wanted = { user: "new", name: "a name", roles: ["user"], scopes: ["!tools:call:text_search"], expires_in_s: 60 }
    const { key, record } = (await server.admin("POST", "keys", wanted)).body

    assert.equal((await plain(t, { api_key: key })).outcome, "open")
    const listed = await server.admin("GET", "keys")
    assert.ok(!listed.text.includes(key) && !listed.text.includes(key.slice(-20)))
    assert.deepEqual(listed.body.keys.find(({ id }) => id === record.id).roles, ["user"])
    assert.equal(listed.headers.get("cache-control"), "no-store")
    assert.equal((await server.admin("DELETE", `keys/${record.id}`)).status, 200)
    assert.equal((await server.admin("DELETE", "keys/0000000000000000")).status, 404)
    assert.equal((await plain(t, { api_key: key })).outcome, "refused")

    const user = "x"
    for (const wrong of [{}, { user: "" }, { user: 7 }, { user, scopes: ["no capability"] }, { user, more: 1 }, { user, roles: "admin" }]) {
      assert.equal((await server.admin("POST", "keys", wrong)).status, 400, JSON.stringify(wrong))
    }
  })

  test("does not let who keeps keys make themselves more than they are", ONE_TEST, async () => {
    const credential = server.keys.keeper.text

    const { status } = await server.admin("POST", "keys", { user: "keeper", roles: ["admin"] }, { credential })

    assert.equal(status, 403, "admin:keys alone must not become everything")
  })

  test("tells of sessions and of what was counted", ONE_TEST, async (t) => {
    await openSession(t, server, server.keys.power)

    const { body: told } = await server.admin("GET", "sessions?user=power")
    const { body: counted } = await server.admin("GET", "security")

    assert.equal(told.sessions.length, 1)
    assert.equal(told.sessions[0].user_id, "power")
    assert.ok(counted.live > 0 && counted.api_keys > 0 && counted.sessions.active_sessions > 0 && counted.audit.total_logged > 0)
    assert.equal((await server.admin("GET", "sessions")).status, 400)
  })

  test("is a page's of another origin as little as anyone's without a credential", ONE_TEST, async () => {
    const refused = await server.admin("GET", "keys", undefined, { headers: { origin: "https://evil.example.com" } })

    assert.equal(refused.headers.get("access-control-allow-origin"), null)
  })
})

describe("the audit log", () => {
  let audited
  before(async () => {
    audited = await startProduction({ settings: SETTINGS, keys: KEYS })
  })
  after(() => audited?.close())

  const entries = async (query) => {
    const { text } = await audited.admin("GET", `audit?${query}`)
    return text.split("\n").filter(Boolean).map((line) => JSON.parse(line))
  }

  test("has every authentication, denial, operation and event", ONE_TEST, async (t) => {
    const session = await openSession(t, audited, audited.keys.lists)
    await session.ask("tools/list")
    await session.ask("tools/call", { name: "stream_hash", arguments: { password: "hush-hush-hush" } })
    await connect(t, audited, { params: { api_key: "wrong" } })
    await joinTopic(session.socket, "mcp:session:1", { clientInfo: CLIENT_INFO, token: "wrong" })
    session.channel.leave()
    await until(async () => (await entries("type=security_event&user_id=lists")).length > 0, "the end of the session")

    const [failure] = (await entries("type=authentication")).filter(({ result }) => result === "failure")
    assert.equal(failure.metadata.error_message, "Token verification failed: invalid")
    assert.equal(failure.params.door, "mcp:session:1")
    assert.equal(failure.metadata.ip_address.replace("::ffff:", "").replace("::1", "127.0.0.1"), "127.0.0.1")
    const operations = await entries("type=operation&user_id=lists")
    assert.deepEqual(operations.map(({ operation }) => operation), ["tools/list"])
    const [denied] = await entries("type=authorization&user_id=lists")
    assert.equal(denied.operation, "tools/call")
    assert.deepEqual(denied.params, { name: "stream_hash", arguments: { password: "[REDACTED]" } })
    const [ended] = await entries("operation=session_terminated&user_id=lists")
    assert.equal(ended.type, "security_event")
    const all = await entries("limit=1000")
    assert.deepEqual(all.map(({ timestamp }) => timestamp), all.map(({ timestamp }) => timestamp).sort().reverse(), "the newest first")
    assert.equal((await entries("limit=2")).length, 2)
    assert.deepEqual(await entries(`from=${encodeURIComponent("2099-01-01T00:00:00Z")}`), [])
  })

  test("comes as CSV too, whose fields no spreadsheet runs", ONE_TEST, async (t) => {
    await connect(t, audited, { params: { token: audited.userToken("=1+1") } })
    const { text, headers } = await audited.admin("GET", "audit?format=csv&type=authentication&limit=5")

    assert.match(headers.get("content-type"), /^text\/csv/)
    const [head, first] = text.split(/\r?\n/)
    assert.equal(head, "timestamp,type,user_id,client_id,operation,result,ip_address")
    assert.equal(first.split(",").length, 7)
    assert.doesNotMatch(text, /(^|,)"?=1\+1/m)
  })

  test("refuses questions that make no sense", ONE_TEST, async () => {
    for (const query of ["type=no", "from=yesterday", "limit=many", "format=xml"]) {
      assert.equal((await audited.admin("GET", `audit?${query}`)).status, 400, query)
    }
  })

  test("is heard live on its topic by those who may", ONE_TEST, async (t) => {
    const join = async (name) => {
      const { socket } = await connect(t, audited, { params: { api_key: audited.keys[name].text } })
      return joinTopic(socket, "mcp_audit_stream")
    }
    assert.equal((await join("ada")).reason, "unauthorized")
    assert.equal((await join("power")).reason, "unauthorized")
    const { channel } = await join("auditor")
    const heard = []
    channel.on("audit_log", (entry) => heard.push(entry))

    await connect(t, audited, { params: { api_key: "a wrong key of some length" } })

    const failure = await until(() => heard.find(({ result }) => result === "failure"), "the entry")
    assert.equal(failure.type, "authentication")
    assert.ok(!JSON.stringify(heard).includes("a wrong key"))
  })

  test("is read by the command, from the server that runs", ONE_TEST, async () => {
    const { code, stdout, stderr } = await audited.cli("audit", "--type", "authentication", "--limit", "3")

    assert.deepEqual([code, stderr], [0, ""])
    assert.equal(stdout.trim().split("\n").length, 3)
  })
})

describe("the command keys", () => {
  test("makes, lists and revokes keys at a server that runs", ONE_TEST, async (t) => {
    const made = await server.cli("keys", "create", "--user", "of-command", "--role", "user", "--scope", "admin:stats")
    assert.equal(made.code, 0, made.stderr)
    const key = made.stdout.trim()

    assert.match(key, /^bennu_[A-Za-z0-9_-]{43}$/)
    assert.equal((await plain(t, { api_key: key })).outcome, "open")
    const { stdout } = await server.cli("keys", "list")
    assert.match(stdout, /of-command/)
    assert.ok(!stdout.includes(key))
    const id = /"([0-9a-f]{16})"/.exec(made.stderr)[1]
    assert.match((await server.cli("keys", "revoke", id)).stdout, /^revoked /)
    assert.notEqual((await server.cli("keys", "revoke", "0000000000000000")).code, 0)
    assert.notEqual((await server.cli("keys", "create", "--user", "x", "--scope", "no capability")).code, 0)
  })

  test("does so with the store's file where no server has it", ONE_TEST, async (t) => {
    const own = await startProduction()
    finallyDo(t, () => own.close())
    await own.process.restart("SIGTERM", async () => {
      const { code, stdout } = await own.cli("keys", "create", "--user", "offline", "--role", "user")
      assert.equal(code, 0)
      own.keys.offline = { text: stdout.trim() }
    })

    assert.equal((await plain(t, { api_key: own.keys.offline.text }, own)).outcome, "open")
  })
})

test("no secret is in the log at trace, nor in the audit log's files, nor in the store", { timeout: 60_000 }, async (t) => {
  let auditFolder
  const own = await startProduction({
    settings(folder) {
      auditFolder = join(folder, "audit")
      return { ...SETTINGS, server: { log: "trace" }, audit: { folder: auditFolder }, topics: { patterns: ["room:*"] } }
    },
  })
  finallyDo(t, () => own.close())
  const log = []
  own.process.child.stderr.on("data", (chunk) => log.push(chunk))
  for (const [name, key] of Object.entries(KEYS)) own.keys[name] = await own.createKey(key)
  const secrets = {
    "the secret": own.secret,
    "the secret of JWTs": JWT_SECRET,
    "a wrong key": "a-wrong-key-of-some-length-indeed",
    "a wrong token": "SFMyNTY.d3JvbmctdG9rZW4tb2Ytc29tZS1sZW5ndGg.d3JvbmctdG9rZW4tb2Ytc29tZS1sZW5ndGg",
    "a word for a token": "correct-horse-battery-staple",
    "an argument": "hunter2-hunter2-hunter2",
    "a user's token": own.userToken("ada"),
    "a token of MCP": own.mcpToken({ user_id: "ada", role: "user" }),
    "an operator's": own.operatorToken(),
    "a JWT": ofJwt({ jti: "of-secrets" }),
    "a JWT that is over": ofJwt({ exp: inSeconds(-1) }),
    ...Object.fromEntries(Object.entries(own.keys).map(([name, key]) => [`the key ${name}`, key.text])),
  }

  // A bit of everything, over every way in.
  for (const transport of [WebSocket, LongPoll]) {
    for (const name of ["a wrong key", "the key bob"]) await connect(t, own, { params: { api_key: secrets[name] }, transport })
    for (const name of ["a user's token", "a JWT", "a JWT that is over", "a wrong token", "a word for a token"]) {
      await connect(t, own, { params: { token: secrets[name] }, transport })
      await connect(t, own, { authToken: secrets[name], transport })
    }
  }
  const session = await openSession(t, own, own.keys.admin)
  secrets["a session's token"] = session.reply.sessionToken
  const polled = await connect(t, own, { params: { api_key: own.keys.ada.text }, transport: LongPoll })
  secrets["a long-poll session's token"] = polled.socket.conn.token
  const { channel } = await joinTopic(polled.socket, "mcp:session", { clientInfo: CLIENT_INFO, apiKey: own.keys.ada.text })
  await new Rpc(channel).ask("tools/list")
  const tokens = ["a token of MCP", "a word for a token", "a session's token", "a JWT"].map((name) => ({ token: secrets[name] }))
  for (const credentials of [...tokens, { apiKey: secrets["a wrong key"] }, { apiKey: secrets["the key ada"] }]) {
    await joinTopic(session.socket, `mcp:session:${Math.random()}`, { clientInfo: CLIENT_INFO, ...credentials })
    await joinTopic(session.socket, "mcp:runs", credentials)
    await joinTopic(session.socket, "room:1", credentials)
    await joinTopic(session.socket, "mcp_audit_stream", credentials)
    await joinTopic(session.socket, "no:such", credentials)
  }
  for (const access_token of [secrets["a JWT"], secrets["a wrong token"], secrets["a word for a token"]]) {
    await new Promise((resolve) => session.channel.push("access_token", { access_token }).receive("error", resolve).receive("ok", resolve))
  }
  const sessionToken = secrets["a session's token"]
  await new Promise((resolve) => session.channel.push("refresh_session", { sessionToken }).receive("error", resolve))
  const token = secrets["an argument"]
  await session.ask("tools/call", { name: "stream_hash", arguments: { bytes: 8, password: token, nested: [{ api_key: token }] } })
  const definition = { type: "sequential", steps: [{ tool: "stream_hash", params: { token } }] }
  await session.ask("workflows/execute", { workflowId: "w", definition })
  await session.ask("no/such", { token })
  for (const name of ["a token of MCP", "a JWT", "a wrong token", "a word for a token", "a session's token", "the key ada"]) {
    await (await post(secrets[name], INITIALIZE, {}, { at: own })).text()
    await own.admin("GET", "keys", undefined, { credential: secrets[name] })
  }
  await fetch(`${own.origin}/mcp?access_token=${secrets["a JWT"]}`, { method: "POST", headers: headersOf() })
  await fetch(`${own.origin}/admin/api/audit?token=${secrets["a wrong token"]}`, { headers: headersOf(own.keys.admin.text) })
  await own.admin("DELETE", `keys/${own.keys.bob.id}`)
  await own.admin("POST", "revoke", { credential: "jwt:of-secrets" })
  await own.cli("keys", "list")
  const { text } = await own.admin("GET", "audit?limit=1000")
  await own.process.stop()
  const started = await own.run({ timeout: 1_000 }, "serve", "--config", own.file)

  const logged = Buffer.concat(log).toString()
  assert.match(logged, /TRACE/)
  assert.match(started.stdout, /listening on/)
  assert.ok(text.split("\n").length > 30)
  const files = await Promise.all((await readdir(auditFolder)).map((name) => readFile(join(auditFolder, name), "utf8")))
  assert.ok(files.join("").length > 1_000)
  const store = (await readFile(join(own.folder, "store"))).toString("latin1")
  const found = []
  const places = {
    "the log": logged,
    "the log of a start": started.stdout + started.stderr,
    "the audit files": files.join("\n"),
    "the interface": text,
    "the store": store,
  }
  for (const [what, secret] of Object.entries(secrets)) {
    for (const [where, content] of Object.entries(places)) {
      // A JWT's or a token's signature alone would be enough to take it from there.
      for (const part of [secret, secret.split(".").at(-1)]) if (content.includes(part)) found.push(`${what} is in ${where}`)
    }
  }
  assert.deepEqual([...new Set(found)], [])
})
