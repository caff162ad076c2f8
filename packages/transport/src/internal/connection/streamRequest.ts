import type { AuditEvent } from "../../AuditEvent.js"
import type { StreamRequest, StreamRequestEnd } from "../../Connector.js"
import { pathOf } from "../requestTelemetry.js"
import { newRequestId } from "./ids.js"

/** The request that a stream of ours begins with, as it is put on record. */
export class RecordedRequest {
  private readonly startedAt: number
  private readonly common: Omit<Extract<AuditEvent, { _tag: "RequestStarted" }>, "_tag" | "time">
  private readonly request: StreamRequest

  constructor(
    connection: { readonly id: string; readonly address: string; readonly peer: { readonly spiffeId: string } },
    request: StreamRequest,
    startedAt: number
  ) {
    this.startedAt = startedAt
    this.request = request
    this.common = {
      side: "Client",
      connectionId: connection.id,
      address: connection.address,
      requestId: newRequestId("Client"),
      peerId: connection.peer.spiffeId,
      method: request.method,
      path: pathOf(request.target),
      attempt: 1
    }
  }

  started(): AuditEvent {
    return { _tag: "RequestStarted", time: this.startedAt, ...this.common }
  }

  ended(now: number, lost: string | undefined): AuditEvent {
    const { error = lost, status }: StreamRequestEnd = this.request.end()
    return {
      _tag: "RequestEnded",
      time: now,
      ...this.common,
      durationMillis: now - this.startedAt,
      ...(status === undefined ? undefined : { status }),
      ...(error === undefined ? undefined : { error })
    }
  }
}
