/** The refusals of audit files, like ones together: strangers can make many. */
import * as AuditEvent from "@agentweave/transport/AuditEvent"
import { Option, Schema } from "effect"

const Refusal = Schema.Union(AuditEvent.ConnectionRefused, AuditEvent.ConnectionsRefused)

/** An event of connections that were refused. */
export type Refusal = typeof Refusal.Type

/** Refusals with one reason, on one side, of one ID. */
export interface Group {
  readonly first: number
  readonly last: number
  /** Connections, also where one event stands for many. */
  readonly count: number
  /** Without their ports, in the order they came first, at most {@link maxAddresses}. */
  readonly addresses: ReadonlyArray<string>
  /** The newest of them. */
  readonly event: Refusal
}

/** Most different kinds that are told apart; an ID is what the peer claims, so strangers could make more. */
const maxGroups = 1_000

/** Most addresses of a group that are kept. */
const maxAddresses = 16

const decode = Schema.decodeUnknownOption(Refusal)

/** The event, where it is a refusal. */
export const refusalOf = (event: unknown): Refusal | undefined => Option.getOrUndefined(decode(event))

const keyOf = (event: Refusal): string => {
  switch (event._tag) {
    case "ConnectionRefused":
      return JSON.stringify([event.side, event.error, event.reason, event.expectedId, event.actualId])
    case "ConnectionsRefused":
      return JSON.stringify([event._tag, event.reason])
  }
}

const countOf = (event: Refusal): number => (event._tag === "ConnectionRefused" ? 1 : event.count)

const beginOf = (event: Refusal): number => (event._tag === "ConnectionRefused" ? event.time : event.since)

const addressOf = (event: Refusal): ReadonlyArray<string> =>
  event._tag === "ConnectionRefused"
    ? [event.side === "Client" ? event.address : event.address.replace(/:\d+$/, "")]
    : []

/** Adds a refusal to the group that it belongs to; `false` where there is none for it and no room for another one. */
export const add = (groups: Map<string, Group>, event: Refusal): boolean => {
  const key = keyOf(event)
  const known = groups.get(key)
  if (known === undefined && groups.size >= maxGroups) return false
  const begin = beginOf(event)
  const { addresses = [], count = 0, first = begin, last = event.time } = known ?? {}
  groups.set(key, {
    first: Math.min(first, begin),
    last: Math.max(last, event.time),
    count: count + countOf(event),
    addresses: [...new Set([...addresses, ...addressOf(event)])].slice(0, maxAddresses),
    event: known !== undefined && known.last > event.time ? known.event : event
  })
  return true
}
