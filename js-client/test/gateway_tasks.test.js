// Tasks of revision 2025-11-25, which server-everything has: passed on as any request.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openLegacySession } from "./support/gateway/phoenix_session.js"
import { ABLE, openSdkSession } from "./support/gateway/sdk_session.js"
import { startGateway } from "./support/gateway/server.js"
import { KINDS } from "./support/kinds.js"
import * as upstreams from "./support/upstreams.js"

const ONE_TEST = { timeout: 30_000 }
const [SDK_V1] = KINDS

let gateway
before(async () => {
  gateway = await startGateway({ everything: upstreams.everything() })
})
after(() => gateway?.close())

// Each takes the four seconds of the server's research.
describe("a task", { concurrency: true }, () => {
  const open = (t, options) => openLegacySession(t, gateway, "mcp:server:everything", options)

  test("tells its state and its result, is listed, and is cancelled", ONE_TEST, async (t) => {
    const session = await open(t, { capabilities: ABLE })
    const begin = async (topic) => {
      const params = { name: "simulate-research-query", arguments: { topic }, task: { ttl: 60_000 } }
      return (await session.result("tools/call", params)).task
    }
    const [kept, cancelled] = [await begin("gateways"), await begin("none")]

    assert.equal(kept.status, "working")
    assert.equal((await session.result("tasks/cancel", { taskId: cancelled.taskId })).status, "cancelled")
    const result = await session.result("tasks/result", { taskId: kept.taskId })
    assert.match(result.content[0].text, /^# Research Report: gateways/)
    assert.equal(result._meta["io.modelcontextprotocol/related-task"].taskId, kept.taskId)
    assert.equal((await session.result("tasks/get", { taskId: kept.taskId })).status, "completed")
    const { tasks } = await session.result("tasks/list", {})
    const statuses = Object.fromEntries(tasks.map(({ taskId, status }) => [taskId, status]))
    assert.deepEqual(statuses, { [kept.taskId]: "completed", [cancelled.taskId]: "cancelled" })
    assert.equal((await session.ask("tasks/get", { taskId: "none" })).error.code, -32602)
  })

  test("asks by way of its result", ONE_TEST, async (t) => {
    const session = await open(t, {
      capabilities: ABLE,
      answers: { "elicitation/create": () => ({ action: "accept", content: { interpretation: "snake" } }) },
    })
    const params = { name: "simulate-research-query", arguments: { topic: "python", ambiguous: true }, task: {} }
    const { task } = await session.result("tools/call", params)

    const { content } = await session.result("tasks/result", { taskId: task.taskId })

    assert.match(content[0].text, /^# Research Report: python \(snake\)/)
  })

  test("is followed by the SDK's first line, and asks within it", ONE_TEST, async (t) => {
    const client = { capabilities: { ...ABLE, tasks: { list: {}, cancel: {} } } }
    const { client: sdk } = await openSdkSession(t, gateway, SDK_V1, { server: "everything", client })
    sdk.setRequestHandler(SDK_V1.named("elicitation/create"), () => ({ action: "accept", content: { interpretation: "comedy" } }))
    const { tasks } = sdk.experimental

    const told = []
    const params = { name: "simulate-research-query", arguments: { topic: "python", ambiguous: true } }
    for await (const message of tasks.callToolStream(params, undefined, { task: { ttl: 60_000 } })) told.push(message)

    assert.equal(told[0].type, "taskCreated")
    assert.ok(told.some(({ type, task }) => type === "taskStatus" && task.status === "input_required"))
    assert.match(told.at(-1).result.content[0].text, /^# Research Report: python \(comedy\)/)
    const [{ taskId }] = (await tasks.listTasks()).tasks
    assert.equal(taskId, told[0].task.taskId)
    assert.equal((await tasks.getTask(taskId)).status, "completed")
    await assert.rejects(tasks.cancelTask(taskId), /Cannot cancel task in terminal status/)
  })
})
