// That phoenix's own Channel resumes, with typed positions and gaps: this file is compiled, never run. As an application sees it.

import { type GapReason, type Resume, type ResumeGap, type ResumeOptions, type ResumePosition, withResume } from "bennu-client"
import { Socket } from "phoenix"

const socket = new Socket("ws://127.0.0.1:4000/socket")

export function use(options: ResumeOptions): GapReason[] {
  const reasons: GapReason[] = []
  const resume: Resume = withResume(socket.channel("room:a"), options)
  const end: () => void = resume.onGap(({ reason, from, position }: ResumeGap) => {
    reasons.push(reason)
    console.log(from?.epoch, position?.offset)
  })
  resume.channel.join()
  const position: ResumePosition | null = resume.position
  withResume(socket.channel("room:b", () => ({ token: "t" })), { from: position, onGap: () => end() })
  return reasons
}

// @ts-expect-error: a channel is needed, not its socket
withResume(socket)
// @ts-expect-error: an option of another name is a slip
withResume(socket.channel("room:a"), { position: null })
// @ts-expect-error: a position is an epoch and an offset
withResume(socket.channel("room:a"), { from: 12 })
