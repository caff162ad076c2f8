/**
 * No credentials, and a hold on the sockets.
 *
 * A channel of @grpc/grpc-js 1.14 that is closed while the endpoint has accepted its connection, but not said a word on
 * it, leaves that connection open for good. Credentials are where a channel hands over each socket it has connected.
 */
import type { Socket } from "node:net"
import { type CallCredentials, ChannelCredentials, type ChannelOptions, type experimental } from "@grpc/grpc-js"

type Target = Parameters<ChannelCredentials["_createSecureConnector"]>[0]

export class LocalCredentials extends ChannelCredentials {
  private readonly sockets = new Set<Socket>()
  private disconnected = false

  override _isSecure(): boolean {
    return false
  }

  override _equals(other: ChannelCredentials): boolean {
    return other === this
  }

  override _createSecureConnector(
    target: Target,
    options: ChannelOptions,
    callCredentials?: CallCredentials
  ): experimental.SecureConnector {
    const connector = ChannelCredentials.createInsecure()._createSecureConnector(target, options, callCredentials)
    return {
      ...connector,
      connect: (socket) => {
        this.hold(socket)
        return connector.connect(socket)
      }
    }
  }

  /** Cuts what is connected, and what is about to be. */
  disconnect(): void {
    this.disconnected = true
    for (const socket of this.sockets) socket.destroy()
  }

  private hold(socket: Socket): void {
    if (this.disconnected) {
      socket.destroy()
      return
    }
    this.sockets.add(socket)
    socket.once("close", () => this.sockets.delete(socket))
  }
}
