// What this package uses of the phoenix package, by shape: any of its versions fits, and none is loaded from here.

/** The answer to a push or a join that is still to come. */
export interface PhoenixPush {
  receive(status: "ok" | "error" | "timeout", callback: (response?: any) => any): PhoenixPush
}

/** A `Channel` of phoenix.js. */
export interface PhoenixChannel {
  join(timeoutMs?: number): PhoenixPush
  leave(timeoutMs?: number): PhoenixPush
  push(event: string, payload: object, timeoutMs?: number): PhoenixPush
  on(event: string, callback: (payload?: any) => any): number
  off(event: string, ref?: number): void
  onError(callback: (reason?: any) => any): unknown
  onClose(callback: (payload: any, ref: any, joinRef: any) => any): unknown
}

/** A `Socket` of phoenix.js, connected or not. */
export interface PhoenixSocket {
  connect(): void
  isConnected(): boolean
  channel(topic: string, params?: object): PhoenixChannel
}
