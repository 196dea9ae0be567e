// What the example offers besides calls: its lists, resources, prompts, completions, and word of their changes.

import { outcome, PAGE_ITEMS } from "./application.js"

const WATCHED = "test://watched-resource"
const UPDATED = "notifications/resources/updated"
const TOOLS_CHANGED = "notifications/tools/list_changed"

export const lists = {
  what: "lists everything, page by page",
  async hold(application) {
    const session = await application.connect()
    const names = async (verb, key) => (await session.list(verb, key)).map(({ name }) => name)
    const tools = await names("listTools", "tools")
    const pages = session.wire.map(({ result }) => result.tools.length)
    return {
      tools: { first: tools[0], last: tools.at(-1), repeated: tools.length - new Set(tools).size },
      pages: { full: pages.slice(0, -1).every((items) => items === PAGE_ITEMS), several: pages.length > 2, items: pages.reduce((a, b) => a + b) === tools.length },
      prompts: await names("listPrompts", "prompts"),
      resources: await names("listResources", "resources"),
      templates: (await session.list("listResourceTemplates", "resourceTemplates")).map(({ uriTemplate }) => uriTemplate),
      errors: session.errors,
    }
  },
  comesTo: () => ({
    tools: { first: "test_simple_text", last: "test_trigger_resource_update", repeated: 0 },
    pages: { full: true, several: true, items: true },
    prompts: [
      "test_simple_prompt",
      "test_prompt_with_arguments",
      "test_prompt_with_embedded_resource",
      "test_prompt_with_image",
      "test_input_required_result_prompt",
    ],
    resources: ["static-text", "static-binary", "watched-resource"],
    templates: ["test://template/{id}/data"],
    errors: [],
  }),
}

export const reading = {
  what: "reads resources, fills in prompts, and is helped with their arguments",
  async hold(application) {
    const { client, wire, errors } = await application.connect()
    const read = async (uri) => (await client.readResource({ uri })).contents[0]
    const prompt = async (name, args) => (await client.getPrompt({ name, arguments: args })).messages
    const complete = async (ref, name, value) => (await client.complete({ ref, argument: { name, value } })).completion.values
    const binary = await read("test://static-binary")
    await outcome(client.readResource({ uri: "test://missing" }))
    // The SDK's second line gives its own code for both eras'.
    const { error: missing } = wire.at(-1)
    return {
      text: await read("test://static-text"),
      binary: [binary.mimeType, atob(binary.blob).slice(1, 4)],
      template: JSON.parse((await read("test://template/a%20b/data")).text).id,
      missing: [missing.code, missing.data?.uri],
      simple: (await prompt("test_simple_prompt"))[0].content.text,
      filledIn: (await prompt("test_prompt_with_arguments", { arg1: "one", arg2: "zwei" }))[0].content.text,
      withResource: (await prompt("test_prompt_with_embedded_resource", { resourceUri: "test://x" }))[0].content.resource.uri,
      lacking: (await outcome(prompt("test_prompt_with_arguments", { arg1: "one" }))).code,
      unknown: (await outcome(prompt("no_such_prompt"))).code,
      ofPrompt: await complete({ type: "ref/prompt", name: "test_prompt_with_arguments" }, "arg1", "testV"),
      ofTemplate: await complete({ type: "ref/resource", uri: "test://template/{id}/data" }, "id", "tex"),
      errors,
    }
  },
  comesTo: ({ era }) => ({
    text: { uri: "test://static-text", mimeType: "text/plain", text: "This is the content of the static text resource." },
    binary: ["image/png", "PNG"],
    template: "a b",
    missing: [era === "legacy" ? -32002 : -32602, "test://missing"],
    simple: "This is a simple prompt for testing.",
    filledIn: "Prompt with arguments: arg1='one', arg2='zwei'",
    withResource: "test://x",
    lacking: -32602,
    unknown: -32602,
    ofPrompt: ["testValue1", "testValue2"],
    ofTemplate: ["text"],
    errors: [],
  }),
}

export const changes = {
  what: "hears of changed lists and updated resources, as long as it wants",
  async hold(application) {
    const session = await application.connect()
    const stopLists = await session.watch({ toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true })
    const stopWatching = await session.watch({ uri: WATCHED })
    for (const change of ["tool_change", "prompt_change", "resource_change", "resource_update"]) {
      await session.call(`test_trigger_${change}`)
    }
    const first = await session.methodsHeard(4)
    const [, { uri }] = session.heard[3]

    await stopWatching()
    await session.call("test_trigger_resource_update")
    await session.call("test_trigger_tool_change")
    const then = (await session.methodsHeard(5)).slice(4)
    await stopLists()
    return { first, uri, then, errors: session.errors }
  },
  comesTo: () => ({
    first: [TOOLS_CHANGED, "notifications/prompts/list_changed", "notifications/resources/list_changed", UPDATED],
    uri: WATCHED,
    then: [TOOLS_CHANGED],
    errors: [],
  }),
}
