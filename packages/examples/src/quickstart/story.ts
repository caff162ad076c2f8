/** What the processes of the quickstart send each other, and how it is printed. */
import { Activity, Inspector } from "@agentweave/inspector"
import { SpiffeId } from "@agentweave/spiffe"
import { AuditEvent, AuditLog, IdentityMonitor } from "@agentweave/transport"
import { NodeAuditLog } from "@agentweave/transport-node"
import { Effect, Layer, Option } from "effect"

/** The two workloads: of the embedded authority, or who the agent says we are. */
export const apiId = process.env["QUICKSTART_API_ID"] ?? "spiffe://example.org/api"
export const webId = process.env["QUICKSTART_WEB_ID"] ?? "spiffe://example.org/web"
export const trustDomain = SpiffeId.trustDomain(SpiffeId.make(apiId))

/** One thing that was tried, what should have come of it, and what did. */
export interface Verdict {
  readonly _tag: "Verdict"
  readonly what: string
  readonly expected: string
  readonly actual: string
}

export interface Ready {
  readonly _tag: "Ready"
  readonly port: number
  readonly ownId: string
}

export interface Audited {
  readonly _tag: "Audited"
  readonly event: AuditEvent.AuditEvent
}

/** A process shows its inspector at this address. */
export interface Inspected {
  readonly _tag: "Inspected"
  readonly who: string
  readonly url: string
}

/** The client's part of the story is over, and it goes on calling. */
export interface GoesOn {
  readonly _tag: "GoesOn"
}

export type Message = Verdict | Ready | Audited | Inspected | GoesOn

/** Tells the parent process. */
export const send = (message: Message): Effect.Effect<void> =>
  Effect.sync(() => {
    process.send?.(message)
  })

export const verdict = (what: string, expected: string, actual: string): Effect.Effect<void> =>
  send({ _tag: "Verdict", what, expected, actual })

const color = (code: number) => (text: string) => (process.env["NO_COLOR"] ? text : `\u001b[${code}m${text}\u001b[0m`)
export const dim = color(2)
export const green = color(32)
export const red = color(31)
export const yellow = color(33)
export const bold = color(1)

/** A line by one of the actors. */
export const say = (who: string, text: string): Effect.Effect<void> =>
  Effect.sync(() => console.log(`${bold(who.padEnd(8))} ${text}`))

const short = (id: string | null): string => (id === null ? "nobody" : id.replace(/^spiffe:\/\//, ""))

/** An audit event as one readable line. */
export const auditLine = (event: AuditEvent.AuditEvent): string => {
  switch (event._tag) {
    case "ConnectionAttempted":
      return `${event.connectionId} attempted    ${event.address}`
    case "ConnectionEstablished":
      return `${event.connectionId} ${green("established")}  ${short(event.ownId)} with ${short(event.peerId)}, ${event.tlsVersion}, ${event.cipher}`
    case "ConnectionRefused":
      return `${event.connectionId} ${red("refused")}      ${event.error} ${event.reason}, claimed ${short(event.actualId)}`
    case "ConnectionClosed":
      return `${event.connectionId} closed       ${event.reason} after ${event.requests} requests`
    case "RequestStarted":
    case "RequestEnded":
      return `${event.connectionId} ${event._tag === "RequestStarted" ? "request" : "response"} ${event.method} ${event.path}`
    case "CircuitStateChanged":
      return `circuit ${short(event.target)}: ${event.from} -> ${yellow(event.to)}`
    case "SvidRotated":
      return `own SVID ${green("in use")}  ${short(event.ownId)} until ${new Date(event.notAfter).toISOString()}`
    case "BundleRotated":
      return `bundle ${short(event.trustDomain)}: ${event.authorities} authorities`
    case "IdentityProblem":
      return `own identity ${red(event.problem.toLowerCase())}: ${event.description}`
    default:
      return event._tag
  }
}

/** Readable lines here, the events themselves to the parent. */
const layerLines = (who: string): Layer.Layer<AuditLog.AuditLog> =>
  Layer.succeed(AuditLog.AuditLog, {
    unsafeRecord: (event) => {
      if (!AuditEvent.isRequest(event)) console.log(`${bold(who.padEnd(8))} ${dim("audit")} ${auditLine(event)}`)
      process.send?.({ _tag: "Audited", event } satisfies Audited)
      return undefined
    }
  })

/**
 * The audit log of a quickstart process: lines on the screen, and a file that shows when it was tampered with. What becomes
 * of the process's own identity is in it too.
 */
export const layerAudit = (who: string) =>
  Layer.provideMerge(IdentityMonitor.layer(), Activity.layerAuditLog(layerSinks(who)))

/** Whether the quickstart was started with `--inspect`: its processes show themselves, and go on. */
export const isInspected = process.env["QUICKSTART_INSPECT"] === "yes"

/** The inspector of a process, on a port that the system chooses. A circuit breaker can be reset there. */
const inspector = (who: string) =>
  Layer.effectDiscard(
    Effect.flatMap(Inspector.Inspector, ({ url }) =>
      send({ _tag: "Inspected", who, url: Option.getOrElse(url, () => "") })
    )
  ).pipe(Layer.provide(Inspector.layer({ port: 0, reset: true })))

export const layerInspector = (
  who: string
): Layer.Layer<
  never,
  Layer.Layer.Error<ReturnType<typeof inspector>>,
  Layer.Layer.Context<ReturnType<typeof inspector>>
> => (isInspected ? inspector(who) : Layer.empty)

const layerSinks = (who: string) => {
  const folder = process.env["QUICKSTART_AUDIT"]
  return folder === undefined
    ? layerLines(who)
    : AuditLog.layerTee(layerLines(who), NodeAuditLog.layerFile({ path: `${folder}/${who}.ndjson` }))
}
