// Credentials as others make them: Phoenix.Token of Plug.Crypto, JSON web tokens. Written against their formats, not with the server.

import { createHmac, pbkdf2Sync, sign as signWithKey } from "node:crypto"

const base64url = (bytes) => Buffer.from(bytes).toString("base64url")

/** Erlang's external term format, without its version byte: texts are binaries, and an object is a map whose keys are atoms. */
function term(value) {
  if (typeof value === "string") {
    const bytes = Buffer.from(value)
    return Buffer.concat([Buffer.from([109]), uint32(bytes.length), bytes])
  }
  if (typeof value === "number") return integer(value)
  if (Array.isArray(value)) {
    if (value.length === 0) return Buffer.from([106])
    return Buffer.concat([Buffer.from([108]), uint32(value.length), ...value.map(term), Buffer.from([106])])
  }
  const pairs = Object.entries(value).flatMap(([key, item]) => [Buffer.from([119, Buffer.byteLength(key)]), Buffer.from(key), term(item)])
  return Buffer.concat([Buffer.from([116]), uint32(pairs.length / 3), ...pairs])
}

const uint32 = (number) => Buffer.from([number >>> 24, number >>> 16, number >>> 8, number].map((byte) => byte & 255))

function integer(number) {
  if (number >= 0 && number < 256) return Buffer.from([97, number])
  if (number === (number | 0)) return Buffer.concat([Buffer.from([98]), uint32(number)])
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(number))
  return Buffer.concat([Buffer.from([110, 8, 0]), bytes])
}

/** `Phoenix.Token.sign/4`: keys of 32 bytes by 1000 rounds of PBKDF2 with SHA-256. `signedAt` is in milliseconds, `maxAge` in seconds. */
export function phoenixToken(secret, salt, data, { signedAt = Date.now(), maxAge = 86_400 } = {}) {
  const payload = Buffer.concat([Buffer.from([131, 104, 3]), term(data), term(signedAt), term(maxAge)])
  const signed = `${base64url("HS256")}.${base64url(payload)}`
  const key = pbkdf2Sync(secret, salt, 1000, 32, "sha256")
  return `${signed}.${base64url(createHmac("sha256", key).update(signed).digest())}`
}

/** A JSON web token. `secret` signs with HS256, `key` with RS256; without either it is unsigned. */
export function jwt(claims, { secret, key, header = {} } = {}) {
  const alg = secret ? "HS256" : key ? "RS256" : "none"
  const signed = [{ alg, typ: "JWT", ...header }, claims].map((part) => base64url(JSON.stringify(part))).join(".")
  const signature = secret ? createHmac("sha256", secret).update(signed).digest() : key ? signWithKey("sha256", Buffer.from(signed), key) : ""
  return `${signed}.${base64url(signature)}`
}

/** Unix seconds, so many from this one. */
export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds

/** The same token with its last character changed in a bit that counts. */
export const tampered = (token) => `${token.slice(0, -2)}${token.at(-2) === "A" ? "B" : "A"}${token.at(-1)}`
