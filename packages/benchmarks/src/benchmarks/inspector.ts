import type { Benchmark } from "../harness/Benchmark.js"
import { request } from "./request.js"

const at = "GET, 50 in flight"
const baseline = `Transport.client, ${at}`

/** Measures what the inspector costs the requests of its process, while nobody looks and while one reader does. */
export const inspector: Benchmark = {
  ...request,
  name: "inspector",
  title: "what the inspector costs a request",
  // A watched process makes a snapshot each second: every round has one.
  millis: 1_000,
  rows: [
    { contender: `Transport.client, inspector, ${at}`, baseline, target: 0.99 },
    { contender: `Transport.client, inspector with a reader, ${at}`, baseline, target: 0.95 }
  ]
}
