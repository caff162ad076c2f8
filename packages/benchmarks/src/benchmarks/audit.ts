import type { Benchmark } from "../harness/Benchmark.js"
import { request } from "./request.js"

const at = "GET, 50 in flight"

/** Measures what the record of every request costs: an event of its start and one of its end, chained, signed, on disk. */
export const audit: Benchmark = {
  ...request,
  name: "audit",
  title: "what an audit file costs a request",
  rows: [
    { contender: `SecureChannel, audit in memory, ${at}`, baseline: `SecureChannel, audit in memory, ${at}` },
    { contender: `SecureChannel, ${at}`, baseline: `SecureChannel, audit in memory, ${at}` }
  ]
}
