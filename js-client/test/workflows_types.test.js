// What each type of workflow does with its steps, and what a step gets and gives.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { HUB, openWorkflowSession, SESSION } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"
import { until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }
const LONG_TEST = { timeout: 120_000 }

let server
before(async () => {
  server = await startWorkflows()
})
after(() => server?.close())

const open = (t, options) => openWorkflowSession(t, server, HUB, options)
const numbers = (count) => Array.from({ length: count }, (_, at) => at)

const give = (params, further) => ({ tool: "give", params, ...further })
const take = (source, further) => ({ tool: "take", input: { value: source }, ...further })
const sequence = (...steps) => ({ type: "sequential", steps })

describe("sequential", () => {
  test("gives each step what the one before gave, and gives what the last gave", ONE_TEST, async (t) => {
    const session = await open(t)
    assert.deepEqual(await session.run(sequence(give({ a: 1 }), give({ b: 2 }), give({ c: 3 }))), { c: 3, input: { b: 2, input: { a: 1 } } })
  })

  test("gives the first step the run's input", ONE_TEST, async (t) => {
    const session = await open(t)
    for (const input of [{ x: [1] }, "text", 7, false]) {
      assert.deepEqual(await session.run(sequence(give({})), { input }), { input })
    }
    assert.deepEqual(await session.run(sequence(give({}))), {})
  })

  test("gives what comes by itself only to tools that take it, and never over what the step says", ONE_TEST, async (t) => {
    const session = await open(t)
    const before = give({ a: 1 })

    assert.deepEqual(await session.run(sequence(before, { tool: "take", params: { value: 2 } })), { value: 2 })
    assert.deepEqual(await session.run(sequence(before, { tool: "take_input" })), { input: { a: 1 } })
    assert.deepEqual(await session.run(sequence(before, { tool: "take_input", params: { input: "own" } })), { input: "own" })
    assert.deepEqual(await session.run(sequence(before, { tool: "take_input", input: { input: "give/a" } })), { input: 1 })
  })

  test("maps values of earlier steps, of the input and of the context by JSON Pointer", ONE_TEST, async (t) => {
    const session = await open(t)
    const input = {
      second: "fetch/rows/1/id",
      escaped: "fetch/a~1b/~0",
      whole: "fetch/rows",
      empty: "fetch//",
      default: { from: "fetch/nothing", default: [7] },
      of_null: { from: "fetch/null", default: "default" },
      user: "$context/user/name",
      before: "$input/b",
    }
    const fetch = give({ rows: [{ id: 1 }, { id: 2 }], "a/b": { "~": "odd" }, "": { "": "empty" }, null: null }, { id: "fetch" })

    const result = await session.run(sequence(fetch, give({ b: "é" }), { tool: "give", input }), { context: { user: { name: "Ada" } } })

    delete result.input
    const expected = { second: 2, escaped: "odd", whole: [{ id: 1 }, { id: 2 }], empty: "empty", default: [7], of_null: null, user: "Ada", before: "é" }
    assert.deepEqual(result, expected)
  })

  test("fails where a source has nothing", ONE_TEST, async (t) => {
    const session = await open(t)
    const error = await session.failure(sequence(give({}, { id: "fetch" }), take("fetch/none")))
    assert.equal(error, "Validation failed: value: expected something at fetch/none, came nothing")
  })

  test("has the same tool twice, by ids of their own or made up", ONE_TEST, async (t) => {
    const session = await open(t)
    const named = sequence(give({ n: 1 }, { id: "one" }), give({ n: 2 }, { id: "two" }), { tool: "give", id: "three", input: { one: "one/n", two: "two/n" } })
    const unnamed = sequence(give({ n: 1 }), give({ n: 2 }), { tool: "give", input: { one: "give/n", two: "give_2/n" } })

    for (const definition of [named, unnamed]) {
      const { one, two } = await session.run(definition)
      assert.deepEqual([one, two], [1, 2])
    }
  })

  test("reads a text as JSON where it is an object or a list, and not else", ONE_TEST, async (t) => {
    const session = await open(t)
    const said = (text) => session.run(sequence({ tool: "say", params: { text } }))

    assert.deepEqual(await said('{"a": [1]}'), { a: [1] })
    assert.deepEqual(await said("[1]"), [1])
    for (const text of ["17", "true", "{broken", "é"]) assert.equal(await said(text), text)
    assert.equal(await session.run(sequence({ tool: "say_nothing" })), null)
  })

  test("ends with the first failure", ONE_TEST, async (t) => {
    const session = await open(t)
    const error = await session.failure(sequence(give({ mark: "before" }), { tool: "fail", params: { message: "no disk" } }, give({ mark: "after failure" })))

    assert.equal(error, "Tool execution failed: no disk")
    assert.deepEqual(await server.noted("after failure"), [])
  })
})

describe("parallel", () => {
  const branch = (name) => give({ is: name }, { id: name })

  test("gives an object of all results, by step", ONE_TEST, async (t) => {
    const session = await open(t)
    const result = await session.run({ type: "parallel", steps: [branch("left"), branch("right"), give({ is: "third" })] })
    assert.deepEqual(result, { left: { is: "left" }, right: { is: "right" }, give: { is: "third" } })
  })

  test("gives them to its merge step", ONE_TEST, async (t) => {
    const session = await open(t)
    const steps = [branch("left"), branch("right")]

    const merged = await session.run({ type: "parallel", steps, merge_step: give({ merged: true }) })
    const named = await session.run({ type: "parallel", steps, merge_step: "count_input" })
    const mapped = await session.run({ type: "parallel", steps, merge_step: take("right/is") })

    assert.deepEqual(merged, { merged: true, input: { left: { is: "left" }, right: { is: "right" } } })
    assert.deepEqual(named, { count: 2 })
    assert.deepEqual(mapped, { value: "right" })
  })

  for (const [max_concurrent, most] of [[undefined, 6], [2, 2], [1, 1]]) {
    test(`has as many under way as max_concurrent says: ${max_concurrent}`, ONE_TEST, async (t) => {
      const session = await open(t)
      const mark = `concurrent ${max_concurrent}`
      const steps = numbers(6).map(() => ({ tool: "wait", params: { ms: 60, mark } }))

      await session.run({ type: "parallel", steps, ...(max_concurrent && { max_concurrent }) })

      let underWay = 0
      const counts = (await server.noted(mark)).map(({ tool }) => (underWay += tool ? 1 : -1))
      assert.equal(Math.max(...counts), most)
    })
  }

  test("fails with the first of its branches that fails, and takes the others back", ONE_TEST, async (t) => {
    const session = await open(t)
    const mark = "taken back"
    const steps = [{ tool: "wait", params: { ms: 60_000, mark } }, sequence({ tool: "wait", params: { ms: 100 } }, { tool: "fail", params: { message: "broken" } })]

    assert.equal(await session.failure({ type: "parallel", steps }), "Tool execution failed: broken")
    const noted = await until(async () => (await server.noted(mark)).length > 1 && server.noted(mark))
    assert.deepEqual(noted.map(({ tool, cancelled }) => tool ?? `${cancelled} cancelled`), ["wait", "wait cancelled"])
  })

  test("completes a diamond of a hundred steps", LONG_TEST, async (t) => {
    const session = await open(t)
    const steps = numbers(100).map((n) => give({ n }, { id: `n${n}`, input: { of: "first/start" } }))

    const result = await session.run(sequence(give({ start: 5 }, { id: "first" }), { type: "parallel", steps, merge_step: give({}) }))

    assert.equal(Object.keys(result.input).length, 100)
    assert.ok(numbers(100).every((n) => result.input[`n${n}`].n === n && result.input[`n${n}`].of === 5))
  })
})

describe("conditional", () => {
  const conditional = (condition, mark = "none") => ({
    type: "conditional",
    condition,
    success: [give({ branch: "success", mark: `${mark} success` })],
    failure: [give({ branch: "failure", mark: `${mark} failure` })],
  })

  test("runs the chosen branch alone", ONE_TEST, async (t) => {
    const session = await open(t)

    await session.run(conditional(give({ yes: true }), "chosen"))
    await session.run(conditional({ tool: "fail", params: { message: "no" } }, "refused"))

    const counts = await Promise.all(["chosen success", "chosen failure", "refused success", "refused failure"].map(async (mark) => (await server.noted(mark)).length))
    assert.deepEqual(counts.map((count) => count > 0), [true, false, false, true])
  })

  test("takes a failure, null and false for no, and all else for yes", ONE_TEST, async (t) => {
    const session = await open(t)
    const branch = async (condition) => (await session.run(conditional(condition))).branch

    assert.equal(await branch({ tool: "fail", params: { message: "no" } }), "failure")
    assert.equal(await branch({ tool: "say_nothing" }), "failure")
    assert.equal(await branch({ tool: "nothing", on_error: { value: false } }), "failure")
    assert.equal(await branch(give({})), "success")
    assert.equal(await branch({ tool: "say", params: { text: "" } }), "success")
  })

  test("fails where the condition's tool is not there", ONE_TEST, async (t) => {
    const session = await open(t)
    assert.equal(await session.failure(conditional({ tool: "nobody" })), "Tool execution failed: Tool not found: nobody")
  })

  test("gives its steps what the condition found", ONE_TEST, async (t) => {
    const session = await open(t)
    const { condition_result, input } = await session.run(conditional(give({ verdict: 7 })), { input: "given" })
    assert.deepEqual([condition_result, input], [{ verdict: 7, input: "given" }, "given"])
  })

  test("runs the steps of a branch as a sequence, and none where there is none", ONE_TEST, async (t) => {
    const session = await open(t)
    const condition = give({ yes: true })

    const two = await session.run({ type: "conditional", condition, success: [give({ a: 1 }), take("$condition/yes")] })
    const none = await session.run({ type: "conditional", condition, failure: [give({ a: 1 })] })

    assert.deepEqual(two, { value: true })
    assert.deepEqual(none, { yes: true })
  })

  const EXPRESSIONS = [
    [{ source: "$input/n", op: "gt", value: 3 }, true],
    [{ source: "$input/n", op: "le", value: 3 }, false],
    [{ source: "$input/n", op: "eq", value: 5.0 }, true],
    [{ source: "$input/text", op: "contains", value: "lo" }, true],
    [{ source: "$input/text", op: "in", value: ["hello", "é"] }, true],
    [{ source: "$input/none", op: "exists" }, false],
    [{ source: "$input/no", op: "exists" }, true],
    [{ source: "$input/no" }, false],
    [{ all: [{ source: "$input/n" }, { not: { source: "$input/no" } }] }, true],
    [{ any: [{ source: "$input/no" }, { source: "$input/n", op: "ne", value: 5 }] }, false],
  ]
  for (const [expression, holds] of EXPRESSIONS) {
    test(`compares: ${JSON.stringify(expression)} is ${holds}`, ONE_TEST, async (t) => {
      const session = await open(t)
      const { branch, condition_result } = await session.run(conditional(expression), { input: { n: 5, text: "hello", no: false } })
      assert.deepEqual([branch, condition_result], [holds ? "success" : "failure", holds])
    })
  }
})

describe("loop", () => {
  const loop = (further, ...steps) => ({ type: "loop", steps, ...further })

  test("gives each round its item and its index, and gives a list of results", ONE_TEST, async (t) => {
    const session = await open(t)
    const result = await session.run(loop({ items: ["a", { b: 1 }, null] }, give({ own: 1 })))

    assert.deepEqual(result.map(({ own, item, index }) => [own, item, index]), [[1, "a", 0], [1, { b: 1 }, 1], [1, null, 2]])
  })

  test("gives all results to its aggregator", ONE_TEST, async (t) => {
    const session = await open(t)
    const items = [3, 1, 2]

    const result = await session.run(loop({ items, aggregator: give({ done: true }) }, take("$item")))
    const counted = await session.run(loop({ items, aggregator: "count_input" }, take("$item")))

    assert.deepEqual(result, { done: true, input: [{ value: 3 }, { value: 1 }, { value: 2 }] })
    assert.deepEqual(counted, { count: 3 })
  })

  test("keeps the order of the items, however many rounds are under way", ONE_TEST, async (t) => {
    const session = await open(t)
    const items = [90, 10, 50, 0]
    const result = await session.run(loop({ items, max_concurrent: 4 }, { tool: "wait", input: { ms: "$item", mark: "$index" } }))
    assert.deepEqual(result, items.map((waited, mark) => ({ waited, mark })))
  })

  test("takes its items from a source, from the input or from the context", ONE_TEST, async (t) => {
    const session = await open(t)
    const values = (result) => result.map(({ value }) => value)
    const each = take("$item")

    assert.deepEqual(values(await session.run(sequence(give({ rows: [1, 2] }, { id: "fetch" }), loop({ items: "fetch/rows" }, each)))), [1, 2])
    assert.deepEqual(values(await session.run(loop({ max_iterations: 9 }, each), { input: ["x", "y"] })), ["x", "y"])
    assert.deepEqual(values(await session.run(loop({ max_iterations: 9 }, each), { context: { items: [true] } })), [true])
    assert.deepEqual(values(await session.run(loop({ max_iterations: 3 }, each))), [0, 1, 2])
    assert.deepEqual(values(await session.run(loop({ items: [] }, each))), [])
  })

  test("fails where there are more items than rounds, or no list", ONE_TEST, async (t) => {
    const session = await open(t)
    const over = (source) => sequence(give({ rows: [1, 2, 3], text: "t" }, { id: "fetch" }), loop({ items: source, max_iterations: 2, id: "rows" }, take("$item")))

    assert.match(await session.failure(over("fetch/rows")), /^Workflow execution failed: step rows: items: expected at most 2, .* came 3$/)
    assert.match(await session.failure(over("fetch/text")), /^Validation failed: items: expected a list at fetch\/text, came a string$/)
  })

  test("goes on while a condition holds", ONE_TEST, async (t) => {
    const session = await open(t)
    const until3 = { while: { source: "$index", op: "lt", value: 3 } }
    const byItem = { items: [1, 2, 9, 1], while: { source: "$item", op: "lt", value: 5 } }

    assert.equal((await session.run(loop({ max_iterations: 100, ...until3 }, take("$index")))).length, 3)
    assert.deepEqual((await session.run(loop(byItem, take("$item")))).map(({ value }) => value), [1, 2])
  })

  test("keeps the last result, or none", ONE_TEST, async (t) => {
    const session = await open(t)
    const items = [1, 2, 3]
    assert.deepEqual(await session.run(loop({ items, collect: "last" }, take("$item"))), { value: 3 })
    assert.deepEqual(await session.run(loop({ items, collect: "none" }, take("$item"))), { iterations: 3 })
  })

  test("lies in another, whose item it names", ONE_TEST, async (t) => {
    const session = await open(t)
    const inner = loop({ items: "$item/columns", id: "inner" }, { tool: "give", input: { row: "$item:outer/row", column: "$item", at: "$index:outer" } })

    const result = await session.run(loop({ items: [{ row: "a", columns: [1, 2] }, { row: "b", columns: [3] }], id: "outer" }, inner))

    assert.deepEqual(result.flat().map(({ row, column, at }) => [row, column, at]), [["a", 1, 0], ["a", 2, 0], ["b", 3, 1]])
  })

  test("completes ten thousand rounds", LONG_TEST, async (t) => {
    const session = await openWorkflowSession(t, server, SESSION)
    const steps = [{ tool: "stream_hash", params: { bytes: 8 }, input: { seed: "$item" } }]

    const run = await session.begin({ type: "loop", max_iterations: 10_000, collect: "last", steps }, { input: numbers(10_000), timeout: 60_000 })

    const { status, error, result } = await session.ended(run, 80_000)
    assert.deepEqual([status, error, result?.seed], ["completed", undefined, 9_999])
  })
})

describe("definitions within definitions", () => {
  test("nest five deep, each in its own way", ONE_TEST, async (t) => {
    const session = await open(t)
    const innermost = sequence(give({ depth: 5 }), { tool: "give", input: { item: "$item", found: "$condition/found", start: "start/at", depth: "$input/depth" } })
    const looped = { type: "loop", items: ["x", "y"], steps: [innermost] }
    const chosen = { type: "conditional", condition: give({ found: "it" }), success: [looped], id: "chosen" }
    const beside = { type: "parallel", steps: [chosen, give({ beside: true }, { id: "other" })] }

    const result = await session.run(sequence(give({ at: 1 }, { id: "start" }), beside))

    const found = result.chosen.map(({ item, found, start, depth }) => ({ item, found, start, depth }))
    assert.deepEqual(found, ["x", "y"].map((item) => ({ item, found: "it", start: 1, depth: 5 })))
    assert.equal(result.other.beside, true)
  })
})

describe("the whole", () => {
  test("may be a tool", ONE_TEST, async (t) => {
    const session = await open(t)
    assert.deepEqual(await session.run({ type: "tool", ...give({ a: 1 }) }, { input: 2 }), { a: 1, input: 2 })
  })

  test("maps its own input, is tried again and replaced as any step", ONE_TEST, async (t) => {
    const session = await open(t)
    const falter = { tool: "falter", params: { mark: "whole", times: 1 } }

    assert.deepEqual(await session.run({ ...sequence(give({})), input: { x: "$context/a" } }, { context: { a: 1 } }), { input: { x: 1 } })
    assert.deepEqual(await session.run({ ...sequence(give({}), falter), retry: { max: 1, delay_ms: 1 } }), { calls: 2 })
    assert.deepEqual(await session.run({ ...sequence({ tool: "fail", params: { message: "m" } }), on_error: { value: [1] } }), [1])
  })
})

describe("a step's tool", () => {
  const able = (answer) => ({ capabilities: { elicitation: {} }, answers: { "elicitation/create": answer } })

  test("asks the caller's client", ONE_TEST, async (t) => {
    const session = await open(t, able(({ message }) => ({ action: "accept", content: { name: `${message} Ada` } })))
    const result = await session.run(sequence({ tool: "ask", params: { message: "It is" }, id: "asked" }, take("asked/content/name")))
    assert.deepEqual(result, { value: "It is Ada" })
  })

  test("is told that nobody can be asked, where nobody waits or nobody can", ONE_TEST, async (t) => {
    const [session, unable] = [await open(t, able(() => ({ action: "decline" }))), await open(t)]
    const definition = sequence({ tool: "ask", params: { message: "m" } })

    const run = await session.begin(definition)

    assert.equal((await session.ended(run)).status, "failed")
    assert.match(await unable.failure(definition), /^Tool execution failed: /)
  })
})

describe("multi_tool", () => {
  test("stands as a step", ONE_TEST, async (t) => {
    const session = await open(t)
    const calls = [give({ a: 1 }), { tool: "take_input" }]

    const result = await session.run(sequence({ type: "multi_tool", calls, id: "many" }, take("many/tools_executed")))

    assert.deepEqual(result, { value: ["give", "take_input"] })
    assert.deepEqual(await session.run({ type: "multi_tool", calls }), { operation_type: "multi_tool", status: "completed", result: { input: { a: 1 } }, tools_executed: ["give", "take_input"] })
  })
})

describe("sampling", () => {
  const TOOLS = [{ name: "search_pages", description: "Searches the web" }, "add_numbers"]
  const choose = (prompt, further) => ({ type: "sampling", prompt, tools: TOOLS, params: { q: 1 }, ...further })
  const answering = (text, asked = []) => ({
    capabilities: { sampling: {} },
    answers: {
      "sampling/createMessage": (params) => {
        asked.push(params)
        return { role: "assistant", model: "m", content: { type: "text", text } }
      },
    },
  })

  test("chooses by words, and calls what it chose", ONE_TEST, async (t) => {
    const session = await open(t)

    assert.deepEqual(await session.run(choose("search the web")), { tool: "search_pages", q: 1 })
    assert.deepEqual(await session.run(choose("add 3 numbers")), { tool: "add_numbers", q: 1 })
    assert.deepEqual(await session.run(choose("add 3 numbers", { execute: false })), { selected_tool: "add_numbers" })
    const { prompt, ...byCriteria } = choose("")
    assert.deepEqual(await session.run({ ...byCriteria, criteria: { task: "web search" } }), { tool: "search_pages", q: 1 })
  })

  for (const topic of [SESSION, HUB]) {
    test(`lets the client's model choose, on ${topic}`, ONE_TEST, async (t) => {
      const asked = []
      const session = await openWorkflowSession(t, server, topic, answering("add_numbers", asked))

      const chosen = await session.run(choose("search the web", { execute: false }))

      assert.deepEqual(chosen, { selected_tool: "add_numbers" })
      assert.equal(asked.length, 1)
      assert.match(JSON.stringify(asked[0].messages), /search the web/)
    })
  }

  test("chooses by words where the model names none of the tools, or is not to be asked", ONE_TEST, async (t) => {
    const asked = []
    const session = await open(t, answering("something else", asked))

    assert.equal((await session.run(choose("search the web"))).tool, "search_pages")
    assert.equal((await session.run(choose("search the web"), { sampling_enabled: false })).tool, "search_pages")
    assert.equal(asked.length, 1)
  })

  test("is a step among others, which gets and gives", ONE_TEST, async (t) => {
    const session = await open(t)
    const result = await session.run(sequence(give({ a: 1 }), choose("add numbers", { id: "chosen" }), take("chosen/input/a")))
    assert.deepEqual(result, { value: 1 })
  })
})

describe("a step that fails", () => {
  const fail = (further) => ({ tool: "fail", params: { message: "broken" }, ...further })

  test("is tried again as often as it says", ONE_TEST, async (t) => {
    const session = await open(t)
    const falter = (mark, times, retry) => ({ tool: "falter", params: { mark, times }, retry })

    assert.deepEqual(await session.run(sequence(falter("twice", 2, { max: 2, delay_ms: 10 }))), { calls: 3 })
    assert.equal(await session.failure(sequence(falter("thrice", 3, { max: 2, delay_ms: 10 }))), "Tool execution failed: failure 3")
    assert.equal((await server.noted("thrice")).filter(({ tool }) => tool).length, 3)
  })

  test("is not tried again where that can't help", ONE_TEST, async (t) => {
    const session = await open(t)
    const began = Date.now()
    await session.failure(sequence({ tool: "nobody", retry: 5 }))
    assert.ok(Date.now() - began < 1_000)
  })

  test("is replaced by null, by a value or by another step", ONE_TEST, async (t) => {
    const session = await open(t)
    const after = (on_error) => session.run(sequence(fail({ on_error, id: "bad" }), take("bad")))

    assert.deepEqual(await after("continue"), { value: null })
    assert.deepEqual(await after({ value: { a: [1] } }), { value: { a: [1] } })
    const { value } = await after({ step: { tool: "give", input: { why: "$error/message", step: "$error/step" } } })
    assert.deepEqual([value.why, value.step], ["broken", "bad"])
    assert.match(await session.failure(sequence(fail({ on_error: "fail" }))), /broken/)
  })

  test("has its own time", ONE_TEST, async (t) => {
    const session = await open(t)
    const mark = "too slow"
    const slow = { tool: "wait", params: { ms: 60_000, mark }, timeout_ms: 100, id: "slow" }

    assert.match(await session.failure(sequence(slow)), /^Workflow execution failed: step slow: timed out after 100 ms$/)
    assert.deepEqual(await session.run(sequence({ ...slow, on_error: { value: "late" } }, take("slow"))), { value: "late" })
    await until(async () => (await server.noted(mark)).filter(({ cancelled }) => cancelled).length === 2)
  })

  test("keeps the others of a parallel going where it is replaced", ONE_TEST, async (t) => {
    const session = await open(t)
    const result = await session.run({ type: "parallel", steps: [fail({ on_error: "continue", id: "bad" }), give({ a: 1 }, { id: "good" })] })
    assert.deepEqual(result, { bad: null, good: { a: 1 } })
  })
})
