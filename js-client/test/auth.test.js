// Who comes in: a socket's and a join's credentials, with the stock phoenix client over WebSocket and long poll, against production.

import assert from "node:assert/strict"
import { generateKeyPairSync } from "node:crypto"
import { writeFile, mkdtemp, rm } from "node:fs/promises"
import { request } from "node:http"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import * as Newest from "phoenix"
import WebSocket from "ws"

import { openSocket } from "./support/clients.js"
import { inSeconds, jwt, phoenixToken, tampered } from "./support/credentials.js"
import { CLIENT_INFO, connect, joinTopic, openSession, Rpc, startProduction } from "./support/production.js"
import { finallyDo, until } from "./support/waiting.js"

const require = createRequire(import.meta.url)
const ONE_TEST = { timeout: 30_000 }
const LINES = { 1.5: require("phoenix-1.5"), 1.6: require("phoenix-1.6"), 1.7: require("phoenix-1.7"), 1.8: Newest }
const JWT_SECRET = "a secret of JSON web tokens, of forty bytes"
const HOUR_S = 3_600

const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
const PUBLIC_PEM = publicKey.export({ type: "spki", format: "pem" })

let folder
let server
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "auth-"))
  const keyFile = join(folder, "public.pem")
  await writeFile(keyFile, PUBLIC_PEM)
  server = await startProduction({
    settings: {
      jwt: { algorithms: ["HS256", "RS256"], secret: JWT_SECRET, key_file: keyFile, leeway_s: 0 },
      auth: { session_timeout_ms: 3_000, session_refresh_window_ms: 1_000 },
      topics: { patterns: ["room:*"] },
    },
    keys: {
      ada: { user: "ada", roles: ["user"] },
      admin: { user: "root", roles: ["admin"] },
      brief: { user: "brief", roles: ["user"], expires_in_s: 1 },
    },
  })
})
after(async () => {
  await server?.close()
  await rm(folder, { recursive: true, force: true })
})

const ofJwt = (claims = {}, how = { secret: JWT_SECRET }) => jwt({ sub: "ada", exp: inSeconds(HOUR_S), roles: ["user"], ...claims }, how)

/** Tokens of sockets, by what they are. */
const goodTokens = () => ({
  "a Phoenix token": server.userToken("ada"),
  "a Phoenix token of a number": server.userToken(7),
  "a JWT by the secret": ofJwt(),
  "a JWT by the key": ofJwt({}, { key: privateKey }),
})
const badTokens = () => ({
  "signed with another secret": phoenixToken("x".repeat(64), "user socket", "ada"),
  "of another salt": server.mcpToken({ user_id: "ada" }),
  "an operator's": server.operatorToken(),
  "too old": server.userToken("ada", { signedAt: Date.now() - 86_401_000 }),
  "tampered with": tampered(server.userToken("ada")),
  "cut off": server.userToken("ada").slice(0, -6),
  "of an empty user": server.userToken(""),
  "of a user with a line end": server.userToken("a\nb"),
  "empty": "",
  "a word": "token",
  "a JWT by another secret": ofJwt({}, { secret: "another secret, of JSON web tokens too" }),
  "a JWT of no algorithm": ofJwt({}, {}),
  "a JWT of no algorithm that says HS256": ofJwt({}, { header: { alg: "HS256" } }),
  "a JWT by HMAC with the public key": ofJwt({}, { secret: PUBLIC_PEM }),
  "a JWT by HMAC with the public key, trimmed": ofJwt({}, { secret: PUBLIC_PEM.trim() }),
  "a JWT that is over": ofJwt({ exp: inSeconds(-1) }),
  "a JWT before its time": ofJwt({ nbf: inSeconds(HOUR_S) }),
  "a JWT issued in the future": ofJwt({ iat: inSeconds(HOUR_S) }),
  "a JWT without a user": ofJwt({ sub: undefined }),
  "a JWT without an end": ofJwt({ exp: undefined }),
  "a JWT that is tampered with": tampered(ofJwt()),
  "a JWT that names its own key": ofJwt({}, { secret: "mine", header: { jwk: { kty: "oct", k: "bWluZQ" } } }),
  "a JWT with a kid of a file": ofJwt({}, { secret: "\0".repeat(32), header: { kid: "../../../dev/zero" } }),
  "a JWT with an unknown extension": ofJwt({}, { secret: JWT_SECRET, header: { crit: ["x"], x: 1 } }),
  "an API key": server.keys.ada.text,
})

/** Asks for an upgrade with a query and headers; gives the status and the body. */
function upgrade({ query = "", headers = {}, path = "/socket/websocket" } = {}) {
  return new Promise((resolve, reject) => {
    const asked = request(`${server.origin}${path}?vsn=2.0.0&${query}`, {
      headers: {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        ...headers,
      },
    })
    asked.on("error", reject)
    asked.on("upgrade", (response, socket) => {
      socket.destroy()
      resolve({ status: response.statusCode, protocol: response.headers["sec-websocket-protocol"] })
    })
    asked.on("response", async (response) => {
      let body = ""
      for await (const chunk of response) body += chunk
      resolve({ status: response.statusCode, body })
    })
    asked.end()
  })
}

const query = (params) => new URLSearchParams(params).toString()

describe("a socket", () => {
  const ways = {
    "authToken, WebSocket": (token) => ({ authToken: token }),
    "params.token, WebSocket": (token) => ({ params: { token } }),
    "authToken, long poll": (token) => ({ authToken: token, transport: Newest.LongPoll }),
    "params.token, long poll": (token) => ({ params: { token }, transport: Newest.LongPoll }),
  }
  for (const [way, options] of Object.entries(ways)) {
    test(`opens by good tokens and by no bad one: ${way}`, ONE_TEST, async (t) => {
      for (const [what, token] of Object.entries(goodTokens())) {
        assert.ok((await connect(t, server, options(token))).socket, `${what} should open`)
      }
      for (const [what, token] of Object.entries(badTokens())) {
        assert.equal((await connect(t, server, options(token))).refused, 403, `${what} should be refused`)
      }
    })
  }

  for (const [line, Phoenix] of Object.entries(LINES)) {
    test(`opens by an API key in the params and by no wrong one: phoenix ${line}`, ONE_TEST, async (t) => {
      const open = async (params) => (await connect(t, server, { Phoenix, params })).refused ?? "open"

      assert.equal(await open({ api_key: server.keys.ada.text }), "open")
      assert.equal(await open({ token: server.userToken("ada") }), "open")
      for (const wrong of ["", "test_key", "x".repeat(32), tampered(server.keys.ada.text), server.keys.ada.text.slice(0, -1)]) {
        assert.equal(await open({ api_key: wrong }), 403, wrong)
      }
      assert.equal(await open({}), 403)
      assert.equal(await open({ token: "bad", api_key: server.keys.ada.text }), 403, "a token wins")
      assert.equal(await open({ token: "", api_key: server.keys.ada.text }), 403, "an empty one too")
    })
  }

  test("has the token of the subprotocol before the one of the params", ONE_TEST, async (t) => {
    const [good, bad] = [server.userToken("ada"), "bad"]

    assert.ok((await connect(t, server, { authToken: good, params: { token: bad } })).socket)
    assert.equal((await connect(t, server, { authToken: bad, params: { token: good, api_key: server.keys.ada.text } })).refused, 403)
  })

  test("is refused with 403 and nothing else, whatever is wrong", ONE_TEST, async () => {
    const encoded = (token) => Buffer.from(token).toString("base64url")
    const subprotocol = (token) => ({ "sec-websocket-protocol": `phoenix, base64url.bearer.phx.${encoded(token)}` })
    const good = server.userToken("ada")
    const refusals = {
      "nothing": {},
      "a bad token": { query: query({ token: "bad" }) },
      "a bad key": { query: query({ api_key: "bad" }) },
      "a list": { query: `token[]=${good}` },
      "a map": { query: `token[a]=${good}` },
      "a list of keys": { query: `api_key[]=${server.keys.ada.text}` },
      "a bad subprotocol": { headers: subprotocol("bad") },
      "a subprotocol that is no base64": { headers: { "sec-websocket-protocol": "phoenix, base64url.bearer.phx.%%%" } },
      "a token of 60 KB": { query: query({ token: `SFMyNTY.${"A".repeat(15_000)}.AAAA` }) },
      "a bearer header": { headers: { authorization: `Bearer ${good}` } },
      "a cookie": { headers: { cookie: `token=${good}; _app_key=${good}` } },
    }

    for (const [what, how] of Object.entries(refusals)) {
      assert.deepEqual(await upgrade(how), { status: 403, body: "" }, what)
    }
    assert.deepEqual(await upgrade({ headers: subprotocol(good) }), { status: 101, protocol: "phoenix" })
    assert.equal((await upgrade({ query: query({ token: good }) })).status, 101)
  })

  test("is refused over long poll with 403 in the body", ONE_TEST, async () => {
    const poll = async (params, headers = {}) => {
      const response = await fetch(`${server.origin}/socket/longpoll?vsn=2.0.0&${query(params)}`, { headers })
      return [response.status, await response.json()]
    }
    const token = server.userToken("ada")

    assert.deepEqual(await poll({}), [200, { status: 403 }])
    assert.deepEqual(await poll({ token: "bad" }), [200, { status: 403 }])
    assert.deepEqual(await poll({ api_key: "bad" }), [200, { status: 403 }])
    assert.deepEqual(await poll({ api_key: server.keys.ada.text }, { "x-phoenix-authtoken": "bad" }), [200, { status: 403 }])
    assert.equal((await poll({}, { "x-phoenix-authtoken": token }))[1].status, 410)
    assert.equal((await poll({ token }))[1].status, 410)
    assert.equal((await poll({ api_key: server.keys.ada.text }))[1].status, 410)
  })

  test("does not open by a key that has expired", ONE_TEST, async (t) => {
    const open = async () => (await connect(t, server, { params: { api_key: server.keys.brief.text } })).refused ?? "open"

    assert.equal(await until(async () => (await open()) === 403 && "refused"), "refused")
  })

})

describe("a socket that is refused", { concurrency: true }, () => {
  for (const [line, Phoenix] of Object.entries(LINES)) {
    test(`is tried again as phoenix ${line} does it`, ONE_TEST, async (t) => {
      const asked = []
      const own = new Phoenix.Socket(server.endpoint, { transport: WebSocket }).reconnectAfterMs
      let attempts = 0
      const socket = openSocket(t, server.endpoint, {
        Phoenix,
        params: () => {
          attempts += 1
          return { token: attempts < 8 ? "bad" : server.userToken("ada") }
        },
        reconnectAfterMs: (tries) => {
          asked.push(tries)
          return own(tries)
        },
      })
      const began = Date.now()
      socket.connect()

      await until(() => socket.isConnected(), "the socket", 10_000)
      const expected = [10, 50, 100, 150, 200, 250, 500]
      assert.deepEqual(asked, [1, 2, 3, 4, 5, 6, 7])
      assert.deepEqual(asked.map(own), expected)
      assert.ok(Date.now() - began >= expected.reduce((sum, ms) => sum + ms) - 50)
    })
  }
})

describe("a join of mcp:session", () => {
  const open = async (t) => (await connect(t, server, { params: { api_key: server.keys.admin.text } })).socket
  const clientInfo = CLIENT_INFO

  test("is refused with the deployment's reasons, the client's info first", ONE_TEST, async (t) => {
    const socket = await open(t)
    const reason = async (params) => (await joinTopic(socket, "mcp:session", params)).reason
    const apiKey = server.keys.ada.text
    const token = (options) => server.mcpToken({ user_id: "ada" }, options)
    const refused = [
      [{}, "Missing required clientInfo parameter"],
      [{ clientInfo: "test", apiKey }, "Missing required clientInfo parameter"],
      [{ clientInfo: { version: "1" }, token: "bad" }, "Missing or invalid client name"],
      [{ clientInfo: { name: "", version: "1" } }, "Missing or invalid client name"],
      [{ clientInfo: { name: "a" } }, "Missing or invalid client version"],
      [{ clientInfo: { ...clientInfo, capabilities: [] }, token: "bad" }, "Invalid client capabilities format"],
      [{ clientInfo }, "No authentication credentials provided"],
      [{ clientInfo, token: 7, apiKey: null }, "No authentication credentials provided"],
      [{ clientInfo, api_key: apiKey }, "No authentication credentials provided"],
      [{ clientInfo, token: "", apiKey }, "Token verification failed: invalid"],
      [{ clientInfo, token: "bad", apiKey }, "Token verification failed: invalid"],
      [{ clientInfo, token: apiKey }, "Token verification failed: invalid"],
      [{ clientInfo, token: server.userToken("ada") }, "Token verification failed: invalid"],
      [{ clientInfo, token: server.operatorToken() }, "Token verification failed: invalid"],
      [{ clientInfo, token: tampered(token()) }, "Token verification failed: invalid"],
      [{ clientInfo, token: server.mcpToken({ role: "admin" }) }, "Token verification failed: invalid"],
      [{ clientInfo, token: server.mcpToken({ user_id: "ada", permissions: "all" }) }, "Token verification failed: invalid"],
      [{ clientInfo, token: server.mcpToken({ user_id: "ada", permissions: ["no capability"] }) }, "Token verification failed: invalid"],
      [{ clientInfo, token: token({ signedAt: Date.now() - 86_401_000 }) }, "Token verification failed: expired"],
      [{ clientInfo, token: ofJwt({ exp: inSeconds(-1) }) }, "Token verification failed: expired"],
      [{ clientInfo, token: ofJwt({}, {}) }, "Token verification failed: invalid"],
      [{ clientInfo, token: ofJwt({}, { secret: PUBLIC_PEM }) }, "Token verification failed: invalid"],
      [{ clientInfo, apiKey: "" }, "Invalid API key"],
      [{ clientInfo, apiKey: "test_key" }, "Invalid API key"],
      [{ clientInfo, apiKey: "x".repeat(43) }, "Invalid API key"],
      [{ clientInfo, apiKey: server.keys.brief.text }, "Invalid API key"],
      [{ clientInfo, apiKey: token() }, "Invalid API key"],
    ]
    await until(async () => (await reason({ clientInfo, apiKey: server.keys.brief.text })) !== undefined)

    for (const [params, expected] of refused) assert.equal(await reason(params), expected, JSON.stringify(params))
  })

  test("replies as the deployment, with a session's token beside", ONE_TEST, async (t) => {
    const socket = await open(t)

    const { reply } = await joinTopic(socket, "mcp:session", { clientInfo, token: server.mcpToken({ user_id: "ada", role: "user" }) })

    const { sessionToken, sessionExpiresAt, ...known } = reply
    assert.deepEqual(Object.keys(known).sort(), ["capabilities", "protocolVersion", "serverInfo", "sessionId"])
    assert.match(known.sessionId, /^mcp_session_[0-9a-f]{16}$/)
    assert.match(sessionToken, /^SFMyNTY\./)
    const lives = Date.parse(sessionExpiresAt) - Date.now()
    assert.ok(lives > 1_500 && lives <= 3_100, `it lives for ${lives} ms`)
  })

  test("is by credentials of its own, whoever the socket is", ONE_TEST, async (t) => {
    const socket = await open(t)

    const { reason } = await joinTopic(socket, "mcp:session", { clientInfo })
    const { channel } = await joinTopic(socket, "mcp:session", { clientInfo, apiKey: server.keys.ada.text })

    assert.equal(reason, "No authentication credentials provided")
    const session = new Rpc(channel)
    assert.equal(await session.error("sampling/createMessage", { config: {} }), "Unauthorized: Missing capability: sampling:createMessage")
    // Other topics take the socket's user: root may see ada's runs.
    await session.result("tools/call", { name: "stream_hash", arguments: { bytes: 8 } })
    const { reply: watched } = await joinTopic(socket, "mcp:runs")
    assert.ok(watched.runs.length > 0)
  })

  test("has the rights that a token gives, by role or by permissions", ONE_TEST, async (t) => {
    const socket = await open(t)
    const rights = async (data) => {
      const token = server.mcpToken({ user_id: "token", ...data })
      const { channel, reason } = await joinTopic(socket, "mcp:session", { clientInfo, token })
      if (reason) return reason
      const session = new Rpc(channel)
      const errors = [await session.error("tools/list"), await session.error("prompts/list"), await session.error("contexts/list")]
      channel.leave()
      return errors.map((error) => error ?? "ok")
    }
    const missing = (capability) => `Unauthorized: Missing capability: ${capability}`

    assert.deepEqual(await rights({}), ["ok", "ok", "ok"])
    assert.deepEqual(await rights({ role: "readonly" }), ["ok", "ok", missing("contexts:list")])
    // Who may do nothing there still gets in: the first server needs no capability, and can be denied.
    assert.deepEqual(await rights({ role: "dashboard" }), [missing("tools:list"), missing("prompts:list"), missing("contexts:list")])
    assert.deepEqual(await rights({ permissions: ["tools:*", "!servers:use:bennu"] }), "unknown MCP server")
    assert.deepEqual(await rights({ permissions: ["tools:*"] }), ["ok", missing("prompts:list"), missing("contexts:list")])
    assert.deepEqual(await rights({ role: "admin", permissions: ["!prompts:*"] }), ["ok", missing("prompts:list"), "ok"])
  })

  test("is refused beyond five sessions of a user, until one leaves or is cut off", ONE_TEST, async (t) => {
    const token = server.mcpToken({ user_id: "many" })
    const sockets = []
    const begin = async () => {
      const socket = await open(t)
      sockets.push(socket)
      return { socket, ...(await joinTopic(socket, "mcp:session", { clientInfo, token })) }
    }
    const five = []
    for (let n = 0; n < 5; n += 1) five.push(await begin())
    const FULL = "Maximum sessions (5) reached for user"

    assert.deepEqual(five.map(({ reason }) => reason), Array(5).fill(undefined))
    assert.equal((await begin()).reason, FULL)
    await new Promise((resolve) => five[0].channel.leave().receive("ok", resolve))
    const sixth = await begin()
    assert.equal(sixth.reason, undefined)
    assert.equal((await begin()).reason, FULL)

    five[1].socket.conn.terminate?.()
    five[1].channel.leave()
    const again = await until(async () => {
      const { reason } = await begin()
      return reason === undefined && "joined"
    })
    assert.equal(again, "joined")
    // A join that replaces the session of the same topic takes no second place.
    const { reason } = await joinTopic(five[2].socket, "mcp:session", { clientInfo, token })
    assert.equal(reason, undefined)
  })

  test("counts as long as its session goes on, however long its token held", ONE_TEST, async (t) => {
    const settings = { auth: { session_timeout_ms: 1_000, session_refresh_window_ms: 1_000, sessions_per_user_max: 2 } }
    const own = await startProduction({ settings, keys: { ada: { user: "ada", roles: ["user"] } } })
    finallyDo(t, () => own.close())
    const sessions = [await openSession(t, own, own.keys.ada), await openSession(t, own, own.keys.ada)]
    const { sessionToken, sessionExpiresAt } = sessions[0].reply
    await until(() => Date.now() > Date.parse(sessionExpiresAt) + 100)
    assert.equal((await joinTopic(sessions[0].socket, "mcp:runs", { token: sessionToken })).reason, "Session expired")
    assert.deepEqual([await sessions[0].error("tools/list"), await sessions[1].error("tools/list")], [undefined, undefined])

    await assert.rejects(openSession(t, own, own.keys.ada), /Maximum sessions \(2\) reached for user/)
  })

  test("gives a token for other topics, which ends with the session", ONE_TEST, async (t) => {
    const socket = await open(t)
    const other = await open(t)
    const { channel, reply } = await joinTopic(socket, "mcp:session", { clientInfo, apiKey: server.keys.ada.text })
    const token = reply.sessionToken
    const joined = async () => (await joinTopic(other, "mcp:runs", { token })).reason ?? "joined"

    assert.equal(await joined(), "joined")
    // A session of a session's token is the same user's, with the same rights.
    const { channel: second } = await joinTopic(other, "mcp:session", { clientInfo, token })
    assert.equal(await new Rpc(second).error("sampling/createMessage", {}), "Unauthorized: Missing capability: sampling:createMessage")
    assert.equal((await connect(t, server, { params: { token } })).refused, 403, "it opens no socket")
    await new Promise((resolve) => channel.leave().receive("ok", resolve))
    assert.equal(await until(async () => (await joined()) === "Session not found" && "ended"), "ended")
  })

  test("gives a token that is made anew shortly before its end, and not earlier", ONE_TEST, async (t) => {
    const socket = await open(t)
    const { channel, reply } = await joinTopic(socket, "mcp:session", { clientInfo, apiKey: server.keys.ada.text })
    const refresh = (payload) =>
      new Promise((resolve) => {
        channel.push("refresh_session", payload).receive("ok", resolve).receive("error", resolve)
      })
    const token = reply.sessionToken

    assert.deepEqual(await refresh({ sessionToken: token }), { reason: "Token not eligible for refresh" })
    assert.deepEqual(await refresh({}), { reason: "sessionToken must be a string" })
    assert.deepEqual(await refresh({ sessionToken: "bad" }), { reason: "Invalid token: invalid" })
    assert.deepEqual(await refresh({ sessionToken: server.mcpToken({ user_id: "ada" }) }), { reason: "Invalid token: invalid" })

    const anew = await until(async () => {
      const answer = await refresh({ sessionToken: token })
      return answer.sessionToken && answer
    })
    assert.notEqual(anew.sessionToken, token)
    assert.ok(Date.parse(anew.sessionExpiresAt) > Date.parse(reply.sessionExpiresAt))
    const joined = async (token) => (await joinTopic(socket, "mcp:runs", { token })).reason ?? "joined"
    assert.equal(await joined(token), "Token revoked")
    assert.equal(await joined(anew.sessionToken), "joined")
    assert.deepEqual(await refresh({ sessionToken: token }), { reason: "Token revoked" })
  })

  test("gives a token that ends with its time", ONE_TEST, async (t) => {
    const socket = await open(t)
    const { reply } = await joinTopic(socket, "mcp:session", { clientInfo, apiKey: server.keys.ada.text })
    const joined = async () => (await joinTopic(socket, "mcp:runs", { token: reply.sessionToken })).reason ?? "joined"

    const reasons = new Set()
    await until(async () => {
      reasons.add(await joined())
      return reasons.size > 1
    })
    assert.deepEqual([...reasons].map((reason) => reason.replace("not found", "expired")), ["joined", "Session expired"])
  })

  test("is refused by the old reasons with older lines too", ONE_TEST, async (t) => {
    for (const Phoenix of Object.values(LINES)) {
      const { socket } = await connect(t, server, { Phoenix, params: { api_key: server.keys.admin.text } })

      assert.equal((await joinTopic(socket, "mcp:session", { clientInfo })).reason, "No authentication credentials provided")
      assert.equal((await joinTopic(socket, "mcp:session", { clientInfo, apiKey: "no" })).reason, "Invalid API key")
      assert.match((await joinTopic(socket, "mcp:session", { clientInfo, apiKey: server.keys.ada.text })).reply.sessionId, /^mcp_session_/)
      socket.disconnect()
    }
  })
})

describe("a token that ends", { concurrency: true }, () => {
  const push = (channel, payload) =>
    new Promise((resolve) => {
      const answered = (status) => (response) => resolve({ status, response })
      channel.push("access_token", payload).receive("ok", answered("ok")).receive("error", answered("error"))
    })
  /** Whole seconds are all that a JWT tells: one that ends within two. */
  const brief = (claims) => ofJwt({ exp: inSeconds(2), ...claims })
  const closes = (socket) => {
    const closed = []
    socket.onClose((event) => closed.push(event.code))
    return closed
  }

  for (const [topic, params] of [["mcp:session", { clientInfo: CLIENT_INFO }], ["mcp:runs", {}], ["room:1", {}]]) {
    test(`is renewed by access_token, and its socket and channel stay: ${topic}`, ONE_TEST, async (t) => {
      const roles = ["admin"]
      const { socket } = await connect(t, server, { params: { token: brief({ roles }) } })
      const token = brief({ roles })
      const { channel, reason } = await joinTopic(socket, topic, { ...params, token })
      assert.equal(reason, undefined)
      const closed = closes(socket)
      let errors = 0
      channel.onError(() => (errors += 1))

      assert.deepEqual(await push(channel, { access_token: ofJwt({ roles }) }), { status: "ok", response: {} })
      await until(() => Date.now() > JSON.parse(Buffer.from(token.split(".")[1], "base64url")).exp * 1000 + 500)

      assert.deepEqual([closed, errors, channel.state], [[], 0, "joined"])
      assert.equal((await push(channel, { access_token: ofJwt({ roles }) })).status, "ok")
    })
  }

  test("is not renewed by what is bad or another user's", ONE_TEST, async (t) => {
    const { socket } = await connect(t, server, { params: { api_key: server.keys.admin.text } })
    const { channel } = await joinTopic(socket, "mcp:session", { clientInfo: CLIENT_INFO, token: ofJwt() })
    const refused = [
      [{ access_token: ofJwt({ sub: "bob" }) }, "access_token is another user's"],
      [{ access_token: ofJwt({ exp: inSeconds(-1) }) }, "Token verification failed: expired"],
      [{ access_token: "bad" }, "Token verification failed: invalid"],
      [{ access_token: ofJwt({}, {}) }, "Token verification failed: invalid"],
      [{ access_token: null }, "access_token must be a string"],
      [{}, "access_token must be a string"],
    ]

    for (const [payload, reason] of refused) {
      assert.deepEqual(await push(channel, payload), { status: "error", response: { reason } })
    }
    assert.equal(channel.state, "joined")
  })

  test("closes its socket with 1001, and phoenix.js comes back with a fresh one", ONE_TEST, async (t) => {
    let made = 0
    const token = () => ((made += 1), made === 1 ? brief() : ofJwt())
    const socket = openSocket(t, server.endpoint, { params: () => ({ token: token() }) })
    const closed = closes(socket)
    socket.connect()
    await until(() => socket.isConnected())
    const { channel } = await joinTopic(socket, "mcp:session", { clientInfo: CLIENT_INFO, apiKey: server.keys.ada.text })

    await until(() => closed.length === 1, "the close", 10_000)
    await until(() => channel.state === "joined" && socket.isConnected())

    assert.deepEqual([closed, made], [[1001], 2])
  })

  test("ends its channel with phx_error on a socket of its own, and phoenix.js joins with a fresh one", ONE_TEST, async (t) => {
    const { socket } = await connect(t, server, { params: { api_key: server.keys.ada.text } })
    const closed = closes(socket)
    let made = 0
    const channel = socket.channel("mcp:session", () => ({ clientInfo: CLIENT_INFO, token: ((made += 1), made === 1 ? brief() : ofJwt()) }))
    let errors = 0
    channel.onError(() => (errors += 1))
    await new Promise((resolve) => channel.join().receive("ok", resolve))

    await until(() => errors === 1, "phx_error", 10_000)
    await until(() => channel.state === "joined")

    assert.deepEqual([closed, errors, made], [[], 1, 2])
  })

  test("that renewed one without an end leaves the socket as it was", ONE_TEST, async (t) => {
    const { socket } = await connect(t, server, { params: { token: server.userToken("ada") } })
    const { channel } = await joinTopic(socket, "mcp:runs")
    let errors = 0
    channel.onError(() => (errors += 1))
    const token = brief()
    const { exp } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"))
    assert.equal((await push(channel, { access_token: token })).status, "ok")

    await until(() => Date.now() > (exp + 1) * 1_000, "the later token's end", 10_000)
    assert.deepEqual([errors, channel.state, socket.isConnected()], [0, "joined", true])
  })

  test("closes a long-poll session too", ONE_TEST, async (t) => {
    const { socket } = await connect(t, server, { authToken: brief(), transport: Newest.LongPoll })
    const closed = closes(socket)
    finallyDo(t, () => socket.disconnect())

    await until(() => closed.length > 0, "the close", 15_000)
  })

  test("of an API key ends what came by it as well", ONE_TEST, async (t) => {
    const key = await server.createKey({ user: "brief", roles: ["user"], expires_in_s: 1 })
    const session = await openSession(t, server, key)
    const closed = closes(session.socket)

    await until(() => closed.length > 0, "the close", 10_000)

    assert.equal(closed[0], 1001)
  })
})
