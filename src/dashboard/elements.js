// Elements and words that the parts of the page share.

export const $ = (id) => document.getElementById(id)

/** Makes an element; strings among `children` become text nodes, so nothing is read as markup. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "")
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value)
  }
  node.append(...children)
  return node
}

/** A number as the reader writes it. */
export function count(number) {
  return typeof number === "number" ? number.toLocaleString() : `${number ?? ""}`
}

/** How far a call, a run or a step is, in words. */
export function far({ progress, total, message }) {
  const position = total > 0 ? `${count(progress)} of ${count(total)}` : count(progress)
  return [position, message].filter(Boolean).join(" · ")
}

export function seconds(ms) {
  return Number.isFinite(ms) ? `${(ms / 1000).toFixed(1)} s` : "an unknown time"
}
