/** Holds events and counts that are to be put on record and are not written yet. */
import { type AuditEvent, isRequest } from "@agentweave/transport/AuditEvent"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import { Attempts } from "./attempts.js"
import type { Settings } from "./auditOptions.js"
import { Chain } from "./chain.js"
import type { Counts } from "./format.js"
import { Starts } from "./starts.js"
import { Svids } from "./svids.js"

const none: Counts = { requests: 0, others: 0 }

export class Pending {
  readonly chain: Chain
  readonly svids = new Svids()
  /** Events that wait to be written: in batches, in the chain and as open starts. */
  count = 0
  /** Whether what waits is to be signed with the next batch. */
  signsSoon = false
  private readonly now: () => number
  private readonly settings: Settings
  private readonly signIntervalMillis: number
  private readonly holdsStarts: boolean
  private readonly starts = new Starts()
  private readonly attempts: Attempts
  private dropped = none
  /** Dropped in all, since the log was opened. */
  private droppedInAll = none

  constructor(settings: Settings, now: () => number) {
    this.chain = new Chain(now)
    this.now = now
    this.settings = settings
    this.signIntervalMillis = Duration.toMillis(settings.checkpointInterval)
    this.holdsStarts = settings.whenFullOfRequests === "DropAndCount"
    this.attempts = new Attempts(settings.maxStrangers)
  }

  /** Takes an event; while space is scarce, of strangers only their number. */
  take(event: AuditEvent, isSpaceScarce: boolean): void {
    switch (event._tag) {
      case "RequestStarted":
        this.count++
        if (this.holdsStarts) this.starts.hold(event)
        else this.chain.add(event)
        return
      case "RequestEnded":
        // It takes the place of its start where that is held.
        if (!this.holdsStarts || !this.starts.release(event.requestId)) this.count++
        this.chain.add(event)
        return
      default: {
        const isScarce = isSpaceScarce || this.count > this.settings.maxPending * 0.75
        for (const taken of this.attempts.take(event, isScarce)) this.add(taken)
      }
    }
  }

  private add(event: AuditEvent): void {
    this.chain.add(event)
    this.count++
  }

  /** Counts an event that cannot be taken. */
  drop(event: AuditEvent): void {
    const { others, requests } = this.dropped
    this.dropped = isRequest(event) ? { requests: requests + 1, others } : { requests, others: others + 1 }
  }

  /** Puts into the chain what is to be on record now besides the events that came. */
  collect(isEnd: boolean): void {
    // They were counted when they came.
    for (const event of this.starts.takeAll()) this.chain.add(event)
    if (isEnd) for (const event of this.attempts.takeAll()) this.add(event)
    for (const sum of this.attempts.takeSums(this.now(), isEnd)) this.add(sum)
    const { dropped, droppedInAll } = this
    if (dropped.requests + dropped.others === 0) return
    this.droppedInAll = {
      requests: droppedInAll.requests + dropped.requests,
      others: droppedInAll.others + dropped.others
    }
    this.dropped = none
    this.chain.addContent({ dropped })
  }

  /** Signs what no checkpoint covers yet, with the SVID of its time; without one it stays chained and unsigned. */
  sign(): void {
    this.signsSoon = false
    const svid = this.svids.choose(this.chain.since, this.now())
    // A key that cannot sign is as no key.
    if (svid !== undefined) Either.try(() => this.chain.addCheckpoint(svid, this.droppedInAll))
  }

  get isCheckpointDue(): boolean {
    const { chain, settings, signIntervalMillis } = this
    if (chain.unsigned === 0) return false
    const now = this.now()
    if (this.signsSoon || chain.unsigned >= settings.checkpointEvery) return true
    if (now - chain.since >= signIntervalMillis) return true
    const svid = this.svids.choose(chain.since, now)
    // The last chance of an SVID that may have no successor.
    return svid !== undefined && svid.notAfter - now < signIntervalMillis
  }
}
