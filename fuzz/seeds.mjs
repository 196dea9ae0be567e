// Writes what the recorded conversations say, the tokens of the fixtures and the roles that are built in, as inputs of the fuzz
// targets, one file each, named by its contents.
//
//   node fuzz/seeds.mjs FOLDER      writes FOLDER/TARGET/*
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const recordings = join(root, "tests/transcripts/phoenix");
const [out] = process.argv.slice(2);
if (!out) throw new Error("expected a folder");

// An input says as little as it can: what is longer only slows the search down.
const BYTES_MAX = 2_000;

function seed(target, bytes) {
  if (bytes.length > BYTES_MAX) return;
  mkdirSync(join(out, target), { recursive: true });
  writeFileSync(join(out, target, createHash("sha1").update(bytes).digest("hex")), bytes);
}

function message(vsn, bytes, isText) {
  if (!isText && vsn === 2) seed("v2_binary", bytes);
  else seed(vsn === 2 ? "v2_text" : "v1_text", bytes);
}

const MASK = [0x37, 0xfa, 0x21, 0x3d];

function frame({ opcode, payload, fin = true, rsv = 0, mask = true }) {
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
  const masked = mask ? 0x80 : 0;
  if (payload.length < 126) head.push(masked | payload.length);
  else head.push(masked | 126, payload.length >> 8, payload.length & 255);
  if (!mask) return Buffer.concat([Buffer.from(head), payload]);
  return Buffer.concat([Buffer.from([...head, ...MASK]), Buffer.from(payload.map((byte, i) => byte ^ MASK[i % 4]))]);
}

const bytesOf = (step) => (step.base64 === undefined ? Buffer.from(step.text ?? "") : Buffer.from(step.base64, "base64"));

for (const name of readdirSync(recordings)) {
  const { steps, observed } = JSON.parse(readFileSync(join(recordings, name)));
  const clients = new Map();
  const client = (step) => clients.get(step.client) ?? { vsn: 2, frames: [] };
  const send = (to, opcode, payload, more = {}) => to.frames.push(frame({ opcode, payload, ...more }));
  for (const step of steps) {
    const to = client(step);
    switch (step.op) {
      case "connect":
        clients.set(step.client, { vsn: /vsn=2/.test(step.qs ?? "") ? 2 : 1, frames: [] });
        break;
      case "send":
      case "send_many":
        for (const text of step.texts ?? [step.text]) {
          message(to.vsn, Buffer.from(text), true);
          send(to, 1, Buffer.from(text));
        }
        break;
      case "send_binary":
        message(to.vsn, bytesOf(step), false);
        send(to, 2, bytesOf(step));
        break;
      case "frame":
        send(to, step.opcode, bytesOf(step), { fin: step.fin, rsv: step.rsv, mask: step.mask });
        break;
      case "close": {
        const code = step.code === undefined ? [] : [step.code >> 8, step.code & 255];
        send(to, 8, Buffer.concat([Buffer.from(code), Buffer.from(step.reason ?? "")]));
        break;
      }
      case "http":
        if (typeof step.body === "string") {
          const types = Object.entries(step.headers ?? {}).find(([key]) => key.toLowerCase() === "content-type");
          const form = ["application/x-ndjson", undefined, "application/x-ndjson; charset=utf-8"].indexOf(types?.[1]);
          seed("longpoll_body", Buffer.concat([Buffer.from([form < 0 ? 3 : form]), Buffer.from(step.body)]));
        }
    }
  }
  for (const { frames } of clients.values()) {
    // Without compression and with each agreement about it; splits by the recording's length.
    const stream = Buffer.concat(frames);
    for (const form of name.startsWith("compress") ? [1, 2, 3] : [0]) {
      if (stream.length > 0) seed("websocket_frames", Buffer.concat([Buffer.from([form, 0, stream.length & 255]), stream]));
    }
  }
  // What the server said is a message too.
  for (const events of Object.values(observed?.clients ?? {})) {
    for (const { type, raw } of events) {
      if (type === "text") seed(raw.startsWith("[") ? "v2_text" : "v1_text", Buffer.from(raw));
    }
  }
}

// Phoenix's tokens, and the terms in them.
const fixtures = join(root, "tests/fixtures/tokens");
for (const name of readdirSync(fixtures).filter((name) => name.endsWith(".json"))) {
  for (const { token, payload_etf_b64: payload } of JSON.parse(readFileSync(join(fixtures, name))).cases) {
    if (token) seed("phoenix_token", Buffer.from(token));
    if (payload) {
      seed("erlang_term", Buffer.from(payload, "base64"));
      seed("phoenix_token", Buffer.from(payload, "base64"));
    }
  }
}

// Each role, asked for what it has, for what begins so, and for something else.
const roles = readFileSync(join(root, "src/protocol/policy/roles.rs"), "utf8").split("pub const DEFAULT_ROLES")[1].split("];\n")[0];
for (const [, , list] of roles.matchAll(/\(\s*"(\w+)",\s*&\[([^\]]*)\]/g)) {
  const capabilities = [...list.matchAll(/"([^"]+)"/g)].map(([, capability]) => capability);
  for (const wanted of [capabilities[0], `${capabilities[0].replace("*", "a")}:b`, "servers:use:files", "admin:keys"]) {
    seed("policy_matcher", Buffer.from([...capabilities, wanted].join("\n")));
    seed("policy_matcher", Buffer.from([...capabilities, "!tools:call:text_search", "!topics:*", wanted].join("\n")));
  }
}

// What clients say of resuming, in the spellings that count and in some that don't.
const position = (offset) => `{"epoch":"00ab000000000001","offset":${offset}}`;
for (const value of ["true", "null", "{}", "false", "7", position(12), position("9007199254740991"), position("-1")]) {
  seed("resume_params", Buffer.from(`{"token":"t","resume":${value}}`));
}
for (const [token, last] of [["null", "null"], ['"t"', '"@3"'], ['"t"', '"3"'], ["true", "3"], ["false", '"@"'], ["[1]", '"@\\u0030"']]) {
  seed("resume_params", Buffer.from(`{"clientInfo":{},"recoveryToken":${token},"lastMessageId":${last}}`));
}

// A session that says, is cut, is come back to and heartbeats; and one whose calls are asked again.
seed("recovery_ops", Buffer.from([0, 0, 1, 3, 3, 1, 1, 6, 1, 14, 9, 7, 1, 3, 4, 3, 3, 1, 1, 9, 1, 3, 4, 0, 3, 255, 1, 3, 1, 0, 200, 1]));
seed("recovery_ops", Buffer.from([10, 1, 0, 1, 5, 6, 1, 7, 1, 3, 4, 3, 10, 2, 0, 1, 5, 13, 3, 0, 3, 1, 1, 6, 1, 7, 1, 3, 4, 3, 10, 1, 0, 1, 5]));
