// Debian's Chromium, headless, driven by playwright-core.

import { chromium } from "playwright-core"

/** Starts a Chromium that talks to nobody but the pages under test. `CHROMIUM` names another binary. */
export function launchChromium() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  })
}
