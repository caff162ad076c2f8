import { type Json, viaDispatch } from "../clients/promises.js"
import { type Benchmark, perSecond, type Subject } from "../harness/Benchmark.js"
import { promiseLoop } from "../harness/loops.js"
import { effectServer, secureServer } from "../servers/effect.js"
import { plainServer } from "../servers/plain.js"

const inFlight = 50

const get = { method: "GET", path: "/json", body: "" } as const

/** The lightest client there is, so that the server is what is measured. */
const asked = (server: string): Subject => ({
  server,
  start: async (environment) => {
    const client: Json = viaDispatch(environment, server)
    return {
      sample: promiseLoop(inFlight, () => client.request(get)),
      check: () => client.request(get),
      stop: client.stop
    }
  }
})

const secure = "NodeSecureServer, caller read"
const recordedToFile = "NodeSecureServer, caller read, audit to a file"
const effect = "Effect NodeHttpServer"
const bare = "node:https"

const servers = {
  [secure]: secureServer("memory"),
  [recordedToFile]: secureServer("file"),
  [effect]: effectServer,
  [bare]: plainServer
}

export const server: Benchmark = {
  name: "server",
  title: "small JSON served over mutual TLS",
  unit: perSecond("requests"),
  cpuOf: "server",
  servers,
  subjects: Object.fromEntries(Object.keys(servers).map((name) => [name, asked(name)])),
  rows: [
    { contender: effect, baseline: effect },
    { contender: secure, baseline: effect, target: 0.97 },
    { contender: recordedToFile, baseline: effect },
    { contender: secure, baseline: bare }
  ]
}
