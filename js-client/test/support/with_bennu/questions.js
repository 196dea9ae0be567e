// What the example's tools and prompts ask of the client: the person, the model, the folders.

import { outcome } from "./application.js"

const MISSING_CAPABILITY = -32021
const ADA = { name: "Ada", username: "ada", email: "ada@example.com", color: "green", context: "the tests" }
const ABLE = { sampling: {}, elicitation: {}, roots: {} }

/** Connects a client that answers everything, and writes down what it was asked. */
async function connectAble(application, elicit) {
  const session = await application.connect({ client: { capabilities: ABLE } })
  const asked = []
  const answer = (method, handler) => {
    session.client.setRequestHandler(application.kind.named(method), ({ params }) => {
      asked.push(method)
      return handler(params)
    })
  }
  answer("elicitation/create", elicit)
  answer("sampling/createMessage", ({ messages }) => {
    const [{ text }] = [messages[0].content].flat()
    return { role: "assistant", model: "m", content: { type: "text", text: `you said ${text}` } }
  })
  answer("roots/list", () => ({ roots: [{ uri: "file:///home/ada", name: "Ada's" }, { uri: "file:///tmp" }] }))
  return { session, asked }
}

export const questions = {
  what: "is asked for input, for a model's words and for its folders, one by one and together",
  async hold(application) {
    const forms = []
    const { session, asked } = await connectAble(application, ({ message, requestedSchema }) => {
      const fields = Object.keys(requestedSchema.properties).sort()
      forms.push([message, ...fields])
      return { action: "accept", content: Object.fromEntries(fields.map((field) => [field, ADA[field]])) }
    })
    const prompt = await session.client.getPrompt({ name: "test_input_required_result_prompt" })
    return {
      prompt: prompt.messages[0].content.text,
      form: await session.text("test_elicitation", { message: "Who are you?" }),
      sampling: await session.text("test_sampling", { prompt: "hello" }),
      roots: await session.text("test_input_required_result_list_roots"),
      rounds: await session.text("test_input_required_result_multi_round"),
      together: (await session.text("test_input_required_result_multiple_inputs")).split("\n").map((line) => line.split(":")[0]).sort(),
      // The last three are asked side by side.
      asked: [...asked.slice(0, -3), ...asked.slice(-3).sort()],
      forms,
      errors: session.errors,
    }
  },
  comesTo: () => ({
    prompt: "Use this context: the tests",
    form: 'User response: action=accept, content={"email":"ada@example.com","username":"ada"}',
    sampling: "LLM response: you said hello",
    roots: "the client works in: Ada's, file:///tmp",
    rounds: 'name: action=accept, content={"name":"Ada"}; color: action=accept, content={"color":"green"}',
    together: ["client_roots", "greeting", "user_name"],
    asked: [
      "elicitation/create",
      "elicitation/create",
      "sampling/createMessage",
      "roots/list",
      "elicitation/create",
      "elicitation/create",
      "elicitation/create",
      "roots/list",
      "sampling/createMessage",
    ],
    forms: [
      ["What context should the prompt use?", "context"],
      ["Who are you?", "email", "username"],
      ["Step 1: What is your name?", "name"],
      ["Step 2: What is your favorite color?", "color"],
      ["What is your name?", "name"],
    ],
    errors: [],
  }),
}

export const declining = {
  what: "may decline, fail to answer, and be unable to",
  async hold(application) {
    const { session } = await connectAble(application, () => ({ action: "decline" }))
    session.client.setRequestHandler(application.kind.named("sampling/createMessage"), () => {
      throw new Error("no model today")
    })
    const unable = await application.connect({ session: "unable", client: { capabilities: {} } })
    const told = async (answer) => {
      const { result, code, message } = await outcome(answer)
      return { isError: result?.isError, code, text: result ? result.content[0].text : message }
    }
    return {
      declined: await session.text("test_elicitation", { message: "Who are you?" }),
      failed: await told(session.call("test_sampling", { prompt: "hello" })),
      unable: await told(unable.call("test_sampling", { prompt: "hello" })),
      errors: [...session.errors, ...unable.errors],
    }
  },
  comesTo: ({ era }) => ({
    declined: "User response: action=decline, content={}",
    // Where the question is a part of the answer, the client itself knows that it has none.
    failed:
      era === "legacy"
        ? { isError: true, code: undefined, text: "the client answered with an error: no model today" }
        : { isError: undefined, code: undefined, text: "no model today" },
    unable:
      era === "legacy"
        ? { isError: true, code: undefined, text: 'the client does not have the capability that is needed: {"sampling":{}}' }
        : { isError: undefined, code: MISSING_CAPABILITY, text: "Missing required client capability: sampling" },
    errors: [],
  }),
}
