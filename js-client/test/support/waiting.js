// What tests need to wait, and to tidy up.

/** Resolves with what `condition` gives once that is true; rejects after a while with what was waited for. */
export async function until(condition, what = condition.toString(), ms = 5_000) {
  const end = Date.now() + ms
  for (;;) {
    const value = await condition()
    if (value) return value
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** A promise with its ends outside. */
export function deferred() {
  const it = {}
  it.promise = new Promise((resolve, reject) => Object.assign(it, { resolve, reject }))
  return it
}

const undone = new WeakMap()

/** Has `undo` called when the test ends, the latest first: `t.after` has the oldest first, and servers end before clients. */
export function finallyDo(t, undo) {
  if (!undone.has(t)) {
    undone.set(t, [])
    t.after(async () => {
      for (const one of undone.get(t).reverse()) await one()
    })
  }
  undone.get(t).push(undo)
}
