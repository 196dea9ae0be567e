// The phoenix client that the server carries is the npm package's, byte for byte, at the version stated beside it.

import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"
import { test } from "node:test"

const vendored = (name) => readFile(new URL(`../../src/dashboard/vendor/${name}`, import.meta.url))
const published = (name) => readFile(new URL(`../node_modules/phoenix/${name}`, import.meta.url))

test("the vendored client is the published one of the stated version", async () => {
  const stated = (await vendored("VERSION")).toString().trim()
  const installed = JSON.parse(await published("package.json")).version

  assert.equal(stated, installed)
  assert.ok((await vendored("phoenix.mjs")).equals(await published("priv/static/phoenix.mjs")), "phoenix.mjs differs")
  assert.ok((await vendored("LICENSE-phoenix.md")).equals(await published("LICENSE.md")), "the licence differs")
})
