/** nginx in both roles: in front of our client as a server, and behind `proxy_ssl` as a client of our server. */
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { SpiffeId } from "@agentweave/spiffe"
import { Effect } from "effect"
import { lines, run } from "./child.js"
import * as Ours from "./ours.js"
import type { Scenario } from "./scenarios.js"
import * as World from "./world.js"

/** The port of an nginx with one server, which lives until the scope closes. */
const nginx = Effect.fnUntraced(function* (folder: string, listen: string, server: ReadonlyArray<string>) {
  const port = yield* Ours.freePort
  const config = join(folder, "nginx.conf")
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
  const text = [
    `daemon off; user root; pid ${folder}/nginx.pid; error_log stderr info; events {}`,
    "http {",
    ...["access_log off;", ...temporary.map((name) => `${name}_temp_path ${folder};`)],
    `server { listen 127.0.0.1:${port} ${listen};`,
    ...server,
    "} }"
  ]
  yield* Effect.promise(() => writeFile(config, text.join("\n")))
  const next = yield* lines({ command: "nginx", args: ["-e", "stderr", "-c", config, "-p", folder] }, (line) =>
    line.includes("start worker process ")
  )
  yield* next
  return port
})

/** Our client at nginx, which verifies it and says with what result. */
const asServer = Effect.fnUntraced(function* (
  folder: string,
  options: {
    readonly protocol?: string
    readonly verifyClient?: "on" | "off"
    readonly expects?: (world: World.World) => SpiffeId.SpiffeId
  }
) {
  const { expects = ({ theirs }) => theirs.id, protocol = "TLSv1.3", verifyClient = "on" } = options
  const world = yield* World.make(folder)
  const { ca, cert, key } = yield* World.writeFiles(world, folder)
  const port = yield* nginx(folder, "ssl", [
    `ssl_protocols ${protocol}; ssl_certificate ${cert}; ssl_certificate_key ${key};`,
    `ssl_client_certificate ${ca}; ssl_verify_client ${verifyClient}; ssl_verify_depth 4;`,
    `location / { default_type text/plain; return 200 "$ssl_client_verify"; }`
  ])
  const url = `https://127.0.0.1:${port}`
  return yield* Ours.get(world.ours, { url, peer: expects(world), expect: (body) => body === "SUCCESS" })
})

/** A plain request to nginx, which proxies it to our server over mutual TLS. */
const asClient = Effect.fnUntraced(function* (
  folder: string,
  options: {
    readonly protocol?: string
    readonly serves?: (world: World.World) => SpiffeId.SpiffeId
    readonly shows?: boolean
  }
) {
  const { protocol = "TLSv1.3", serves = ({ theirs }) => theirs.id, shows = true } = options
  const world = yield* World.make(folder)
  const { ca, cert, key } = yield* World.writeFiles(world, folder)
  const upstream = yield* Ours.serve(world.ours, serves(world))
  const port = yield* nginx(folder, "", [
    "location / {",
    `proxy_pass https://127.0.0.1:${upstream}; proxy_http_version 1.1; proxy_ssl_protocols ${protocol};`,
    shows ? `proxy_ssl_certificate ${cert}; proxy_ssl_certificate_key ${key};` : "",
    `proxy_ssl_trusted_certificate ${ca}; proxy_ssl_verify on; proxy_ssl_verify_depth 4;`,
    "proxy_ssl_name localhost; proxy_ssl_server_name on;",
    "}"
  ])
  const url = `http://127.0.0.1:${port}/`
  const { output } = yield* run({ command: "curl", args: ["-sS", "--max-time", "10", "-w", " %{http_code}", url] })
  return output.trim().replaceAll(/\s+/g, " ")
})

export const ofNginx = (folder: string): ReadonlyArray<Scenario> => [
  { name: "nginx: server, our client", expected: /^1 of 1$/, outcome: asServer(folder, {}) },
  {
    name: "nginx: server, our client expects another ID",
    expected: /^0 of 1: PeerVerificationError UnexpectedPeer$/,
    outcome: asServer(folder, { expects: ({ nobody }) => nobody })
  },
  {
    name: "nginx: server that does not ask for our certificate, our client",
    expected: /^0 of 1: PeerVerificationError NotMutual$/,
    outcome: asServer(folder, { verifyClient: "off" })
  },
  {
    name: "nginx: server with TLS 1.2 only, our client",
    expected: /^0 of 1: ConnectionError ProtocolMismatch$/,
    outcome: asServer(folder, { protocol: "TLSv1.2" })
  },
  {
    name: "nginx: proxy_ssl, our server",
    expected: /^spiffe:\/\/interop\.test\/theirs 200$/,
    outcome: asClient(folder, {})
  },
  {
    name: "nginx: proxy_ssl with an ID our server does not serve",
    expected: / 403$/,
    outcome: asClient(folder, { serves: ({ nobody }) => nobody })
  },
  {
    name: "nginx: proxy_ssl without a certificate, our server",
    expected: / 502$/,
    outcome: asClient(folder, { shows: false })
  },
  {
    name: "nginx: proxy_ssl with TLS 1.2 only, our server",
    expected: / 502$/,
    outcome: asClient(folder, { protocol: "TLSv1.2" })
  }
]
