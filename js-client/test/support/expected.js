// What each conversation must come to, whatever the client and the transport.

const ok = (response) => ({ status: "ok", response })

export const expected = {
  talk: {
    joined: ok({ room: "room:talk", echo_params: { from: "ada", nested: { list: [1, "two", null] } } }),
    refused: { status: "error", response: { reason: "unauthorized" } },
    ok: ok({ text: "grüße \u2028 🐦", big: 9007199254740991 }),
    error: { status: "error", response: { why: "asked" } },
    broadcastReply: ok({}),
    ownBroadcast: { n: 7 },
    othersBroadcast: { n: 7 },
    push: { n: 8 },
  },
  talkBinary: {
    reply: ["ok", [255, 128, 127, 1, 0]],
    error: ["error", [9, 8]],
    push: [4, 5, 6],
    broadcastReply: "ok",
    ownBroadcast: [7],
    othersBroadcast: [7],
    empty: ok({ size: 0 }),
    large: ok({ size: 70_000 }),
  },
  sendBinary: { size: ok({ size: 4 }), large: ok({ size: 70_000 }), textBeside: ok({ n: 1 }) },
  meet: {
    together: [
      { ada: ["writing"], grace: ["reading"] },
      { ada: ["writing"], grace: ["reading"] },
    ],
    updated: [
      { ada: ["writing"], grace: ["compiling"] },
      { ada: ["writing"], grace: ["compiling"] },
    ],
    alone: { ada: ["writing"] },
  },
  goOn: {
    rejoined: ok({ room: "room:stay", echo_params: { since: "before" } }),
    reply: ok({ after: true }),
  },
}
