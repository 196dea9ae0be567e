// odd_upstream behind Bennu: what the client says reaches it as the client wrote it, and so do its questions and their answers.

import assert from "node:assert/strict"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { makeFolder, readOddLog, startGateway } from "./support/gateway/server.js"
import { idOf, openWebSocket, startDirect, WAYS, withoutId } from "./support/gateway/texts.js"
import * as upstreams from "./support/upstreams.js"
import { until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }
const INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}'
const ABLE = '{"sampling":{ "one":1.0},"elicitation":{"form":{}},"roots":{"listChanged":true}}'
const initialize = (capabilities) =>
  `{"params":{"clientInfo":{"name":"caf\\u00e9 \\/","version":"1","x-odd":1e2},"capabilities":${capabilities} ,"protocolVersion":"2025-11-25"},"id":"hello \\u00e9","method":"initialize", "jsonrpc":"2.0"}`
const call = (id, name, members = "{}", meta = "") =>
  `{"params":{"name":"${name}","_meta":{${meta}"x-odd":1.0} , "arguments":${members}},"jsonrpc":"2.0","id":${id}, "method":"tools\\/call"}`

let made
let gateway
let log
before(async () => {
  made = await makeFolder()
  log = join(made.folder, "odd.log")
  const odd = (...flags) => ({ ...upstreams.odd(...flags), env: { ODD_LOG: log } })
  gateway = await startGateway({ odd: odd(), stateless: odd("--era", "stateless") })
})
after(async () => {
  await gateway?.close()
  await made?.close()
})

/** The texts of the messages that reached the server and in which something stands, once there is one. */
async function reached(needle) {
  const texts = async () => {
    const lines = (await readOddLog(log)).filter(({ line, message }) => message && line.includes(needle))
    return lines.map(({ line }) => line.slice('{"via":"stdio","message":'.length, -1))
  }
  await until(async () => (await texts()).length > 0, `what reaches the server with ${needle}`)
  return texts()
}

async function open(t, way, capabilities, name = "odd") {
  const peer = await WAYS[way](t, gateway, name)
  const [answer] = await peer.ask(initialize(capabilities))
  await peer.send(INITIALIZED)
  return { peer, answer }
}

for (const way of Object.keys(WAYS)) {
  describe(`over ${way}`, () => {
    test("a request reaches the server as it was written, but for its id and its token", ONE_TEST, async (t) => {
      const { peer } = await open(t, way, "{}")
      const members = `{\n "zeta":12345678901234567890123,"way":"${way}","list":[ 1e2,1.0,-0.0 ],"s":"\\/\\u00e9\\ud83d\\ude00\\u2028", "s":null}`

      const [answer] = await peer.ask(call('"caf\\u00e9 \\/"', "echo_raw", members, '"progressToken":"t \\u00e9\\/" ,'))

      assert.equal(idOf(answer), '"caf\\u00e9 \\/"')
      const [text] = await reached(`"way":"${way}"`)
      const { id, params } = JSON.parse(text)
      const { progressToken } = params._meta
      assert.deepEqual([typeof id, typeof progressToken], ["number", "number"])
      assert.equal(text, call(`${id}`, "echo_raw", members, `"progressToken":${progressToken} ,`).replace("\n", " "))
      const { structuredContent } = JSON.parse(answer).result
      assert.ok(answer.includes('"list":[ 1e2,1.0,-0.0 ],"s":"\\/\\u00e9\\ud83d\\ude00\\u2028", "s":null}'), answer)
      assert.equal(structuredContent.params.arguments.way, way)
    })

    test("progress has the client's own token, however it is spelled", ONE_TEST, async (t) => {
      const { peer } = await open(t, way, "{}")
      for (const token of ['"t \\u00e9\\/ \\"x\\""', "12345678901234567890123", "-0", "1e2", '""', "0"]) {
        const texts = await peer.ask(call("1e0", "progress", '{"count":3}', `"progressToken":${token},`))

        assert.deepEqual(
          texts.slice(0, -1).map((text) => [/"progressToken":(.*?),"_meta"/.exec(text)?.[1], JSON.parse(text).params.progress]),
          [1, 2, 3].map((step) => [token, step]),
        )
        assert.match(texts.at(-1), /"id":1e0 ,"jsonrpc"/)
      }
    })

    test("the handshake of those who share a connection is that with Bennu, word for word", ONE_TEST, async (t) => {
      const { answer } = await open(t, way, '{"experimental":{}}')
      const [own] = (await reached('"method":"initialize"')).filter((text) => !text.includes("caf"))
      const direct = startDirect(t, upstreams.odd())

      const [expected] = await direct.ask(own)

      assert.equal(withoutId(answer), withoutId(expected))
      assert.equal(idOf(answer), '"hello \\u00e9"')
    })

    test("its questions reach the client as they are, and the answers the server", ONE_TEST, async (t) => {
      const { peer } = await open(t, way, ABLE)
      const direct = startDirect(t, upstreams.odd())
      await direct.ask(initialize(ABLE))
      await direct.send(INITIALIZED)
      const result = '"result":{"x-odd":[ 1e2,12345678901234567890123 ],"s":"\\u00e9\\/", "roots":[ ]}'

      for (const [at, [method, name, members]] of [
        ["sampling/createMessage", "sample", "{}"],
        ["elicitation/create", "elicit", "{}"],
        ["roots/list", "roots", "{}"],
        ["sampling/createMessage", "big_id", "{}"],
        ["sampling/createMessage", "big_id", '{"kind":"number"}'],
      ].entries()) {
        const told = await Promise.all(
          [peer, direct].map(async (side) => {
            const from = side.received.length
            const answer = side.ask(call(`${at}`, name, members))
            const { text } = await side.next(method, from)
            await side.send(`{${result} ,"id":${idOf(text)},"jsonrpc":"2.0"}`)
            return { question: withoutId(text), answer: (await answer).at(-1).replace(/,"x-odd-params":.*? , "_meta"/, "") }
          }),
        )
        assert.deepEqual(told[0], told[1])
        assert.ok(told[0].answer.includes(`"answer":${result.slice('"result":'.length)} `), told[0].answer)
      }
    })

    test("a client's error to a question reaches the server as it is", ONE_TEST, async (t) => {
      const { peer } = await open(t, way, ABLE)
      const asked = peer.ask(call("7", "elicit"))
      const { text } = await peer.next("elicitation/create")
      const error = '{ "data":{"one":1.0},"code":-1,"message":"not \\u00e9\\/ today"}'

      await peer.send(`{"error":${error},"jsonrpc":"2.0","id":${idOf(text)}}`)

      const { result } = JSON.parse((await asked).at(-1))
      assert.deepEqual([result.isError, result.content[0].text], [true, error])
    })
  })
}

describe("over WebSocket", () => {
  test("notifications of a client with a connection of its own reach the server as they are", ONE_TEST, async (t) => {
    const { peer } = await open(t, "WebSocket", ABLE)
    const text = '{"params":{ "_meta":{"x-odd":1e2}},"jsonrpc":"2.0","method":"notifications\\/roots\\/list_changed"}'

    await peer.send(text)

    assert.deepEqual(await reached("notifications\\/roots"), [text])
  })

  test("a stateless server's question and the answer to it pass as they are", ONE_TEST, async (t) => {
    const meta = `"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":${ABLE},`
    const peer = await openWebSocket(t, gateway, "mcp:server:stateless")
    const direct = startDirect(t, upstreams.odd("--era", "stateless"))
    const told = async (side) => {
      const [asks] = await side.ask(call("1", "elicit", "{}", meta))
      const state = /"requestState":("(?:[^"\\]|\\.)*")/.exec(asks)[1]
      const responses = '{"odd \\"key\\" \\u00e9\\/":{ "action":"accept","content":{"name":"caf\\u00e9","one":1.0}}}'
      const again = call("2", "elicit", "{}", meta).replace('"params":{', `"params":{"requestState":${state} ,"inputResponses":${responses},`)
      // Their answer repeats what the server got, tokens and all.
      return [asks, ...(await side.ask(again))].map((text) => text.replace(/,"progressToken":\d+/g, ""))
    }

    const [through, expected] = [await told(peer), await told(direct)]

    assert.deepEqual(through, expected)
    assert.match(through[1], /"answer":{"odd \\"key\\" \\u00e9\\\/":{ "action":"accept"/)
  })

  test("what is no message of the server's is dropped, and counted", ONE_TEST, async (t) => {
    const { peer } = await open(t, "WebSocket", "{}")
    const before = await gateway.health("odd")

    const texts = await peer.ask(call("1", "garbage"))
    const twice = await peer.ask(call("2", "duplicate"))
    const [last] = await peer.ask(call("3", "echo_raw"))

    assert.deepEqual([texts.length, twice.length, idOf(last)], [1, 1, "3"])
    assert.equal(peer.received.filter((text) => JSON.parse(text).id === 2).length, 1)
    const { garbage, late } = await gateway.health("odd")
    assert.ok(garbage > before.garbage && late > before.late, JSON.stringify({ garbage, late }))
  })
})
