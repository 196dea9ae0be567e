// Who the page's user is, where the server wants to know: a token or an API key, kept until the tab is closed.

import { $ } from "/assets/elements.js"

const STORED = "bennu-credential"
const isWanted = document.querySelector('meta[name="bennu-credential"]').content === "wanted"
const text = isWanted ? sessionStorage.getItem(STORED) : null

/** Whether nobody has signed in yet, on a server that wants it. */
export const isMissing = isWanted && !text

const kind = !text ? "none" : /^(SFM|XCP\.|QTEy)/.test(text) ? "phoenix" : /^ey.*\..*\./.test(text) ? "jwt" : "key"

/** The options of the socket. */
export const socketOptions = { none: {}, phoenix: { authToken: text }, jwt: { authToken: text }, key: { params: { api_key: text } } }[kind]

/** What a join brings along. A Phoenix token is the socket's alone: topics are joined as the socket's user. */
export const joinParams = { none: {}, phoenix: {}, jwt: { token: text }, key: { apiKey: text } }[kind]

/** The session's topic: `mcp:session` wants a credential of its own. */
export const sessionTopic = kind === "phoenix" ? "mcp:server:bennu" : "mcp:session"

/** Shows the form to sign in, and why. */
export function askForCredential(why) {
  if (!isWanted) return
  $("sign-in").hidden = false
  $("sign-in-reason").textContent = why
}

/** Takes the form away. */
export function stopAsking() {
  $("sign-in").hidden = true
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault()
  sessionStorage.setItem(STORED, $("credential").value.trim())
  location.reload()
})

if (isWanted && text) {
  $("sign-out").hidden = false
  $("sign-out").addEventListener("click", () => {
    sessionStorage.removeItem(STORED)
    location.reload()
  })
}
