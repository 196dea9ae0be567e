// That a queue is consumed on phoenix's own Socket, with typed payloads: this file is compiled, never run. As an application sees it.

import { consume, type ConsumeErrorKind, ConsumeError, type ConsumeOptions, type QueueConsumer, type QueueJoinReply } from "bennu-client"
import { Socket } from "phoenix"

const socket = new Socket("ws://127.0.0.1:4000/socket")

export async function use(options: ConsumeOptions): Promise<ConsumeErrorKind | undefined> {
  const consumer: QueueConsumer<{ text: string }> = consume<{ text: string }>(socket, "inbox:alice", async ({ payload, priority }) => {
    console.log(payload.text.length, priority === "urgent")
  })
  const reply: QueueJoinReply = await consumer.joined
  console.log(reply.lease_ms)
  await consumer.stop()
  const other = consume(socket, "inbox:alice", ({ payload }) => payload.anything, { ...options, params: () => ({ token: "t" }) })
  return other.joined.then(
    () => undefined,
    (error: unknown) => (error instanceof ConsumeError ? error.kind : undefined),
  )
}

// @ts-expect-error: a handler is needed
consume(socket, "inbox:alice")
// @ts-expect-error: an option of another name is a slip
consume(socket, "inbox:alice", () => {}, { concurrency: 1 })
