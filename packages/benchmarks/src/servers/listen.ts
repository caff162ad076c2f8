import type { AddressInfo, Server } from "node:net"

/** Listens on a port the system chooses. A connection that fails its handshake ends the process: none should. */
export const listen = (server: Server): Promise<{ readonly port: number }> => {
  server.on("tlsClientError", (cause) => {
    console.error(`a handshake failed: ${cause}`)
    process.exit(1)
  })
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve({ port: (server.address() as AddressInfo).port }))
  })
}
