/** The seam to gRPC's server: which calls there are, who may make them, and how they end. */

import type { RunFork } from "@agentweave/spiffe/Background"
import {
  type Metadata,
  Server,
  type ServerErrorResponse,
  type ServerUnaryCall,
  type ServerWritableStream,
  status as Status,
  type sendUnaryData
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import type { WorkloadApiError, WorkloadApiErrorReason } from "../WorkloadApiError.js"
import type { Answers } from "../WorkloadApiServer.js"
import * as methods from "./methods.js"

const statusOf: { readonly [Reason in WorkloadApiErrorReason]: Status } = {
  InvalidArgument: Status.INVALID_ARGUMENT,
  PermissionDenied: Status.PERMISSION_DENIED,
  Unavailable: Status.UNAVAILABLE,
  Unimplemented: Status.UNIMPLEMENTED,
  LimitExceeded: Status.RESOURCE_EXHAUSTED,
  Ended: Status.CANCELLED,
  Stalled: Status.UNAVAILABLE,
  Failed: Status.UNKNOWN
}

const response = (code: Status, details: string): ServerErrorResponse & { readonly details: string } => ({
  name: "WorkloadApiError",
  message: details,
  code,
  details
})

/** A defect says nothing about itself to the outside. */
const fromCause = (cause: Cause.Cause<WorkloadApiError>): ServerErrorResponse =>
  Either.match(Cause.failureOrCause(cause), {
    onLeft: ({ description, reason }) => response(statusOf[reason], description),
    onRight: () => response(Status.INTERNAL, "the identity source failed")
  })

/** SPIFFE_Workload_Endpoint section 3: exactly this value, in this case, on every request. */
const isAllowed = (metadata: Metadata): boolean => metadata.get(methods.securityHeader).join() === methods.securityValue

const headerMissing = response(
  Status.INVALID_ARGUMENT,
  `expected the metadata ${methods.securityHeader}: ${methods.securityValue}, got none`
)

const notOffered = response(Status.UNIMPLEMENTED, "this endpoint offers the X.509-SVID profile only")

type Call = ServerWritableStream<true, Uint8Array>

/** Writes a message, and waits while the client does not read. */
const write = (call: Call, message: Uint8Array): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (call.write(message)) return resume(Effect.void)
    call.once("drain", () => resume(Effect.void))
  })

const asRequest = (): true => true
const asBytes = (message: Uint8Array): Buffer => Buffer.from(message.buffer, message.byteOffset, message.byteLength)

/** The seam to gRPC's callbacks: a call's answers run in a fiber that ends with the call. */
const answer =
  (run: RunFork, answers: Stream.Stream<Uint8Array, WorkloadApiError>) =>
  (call: Call): void => {
    if (!isAllowed(call.metadata)) {
      call.emit("error", headerMissing)
      return
    }
    const fiber = run(
      Effect.matchCause(
        Stream.runForEach(answers, (message) => write(call, message)),
        {
          onFailure: (cause) => {
            call.emit("error", fromCause(cause))
          },
          onSuccess: () => {
            call.end()
          }
        }
      )
    )
    call.once("cancelled", () => fiber.unsafeInterruptAsFork(FiberId.none))
  }

/** SPIFFE_Workload_API section 6.2.1: a caller that is entitled to no JWT-SVID. */
const noJwtSvid = response(Status.PERMISSION_DENIED, "this endpoint issues no JWT-SVIDs")

/** Without keys there is no valid token. */
const noJwtKeys = response(Status.INVALID_ARGUMENT, "expected a JWT-SVID, this endpoint has no keys to verify one with")

const decline =
  (reason: ServerErrorResponse) =>
  (call: ServerUnaryCall<true, Uint8Array>, done: sendUnaryData<Uint8Array>): void =>
    done(isAllowed(call.metadata) ? reason : headerMissing)

const declineStream = (call: Call): void => {
  call.emit("error", isAllowed(call.metadata) ? notOffered : headerMissing)
}

/** Requests are empty messages: a large one is refused. */
export const makeServer = (run: RunFork, answers: Answers): Server => {
  const { paths } = methods
  const server = new Server({ "grpc.max_receive_message_length": 4096, "grpc.enable_channelz": 0 })
  const stream = (path: string, handler: (call: Call) => void) =>
    server.register(path, handler, asBytes, asRequest, "serverStream")
  stream(paths.fetchX509Svid, answer(run, Stream.map(answers.x509Svids, Redacted.value)))
  stream(paths.fetchX509Bundles, answer(run, answers.x509Bundles))
  const { jwtBundles } = answers
  stream(paths.fetchJwtBundles, jwtBundles === undefined ? declineStream : answer(run, jwtBundles))
  for (const path of [paths.fetchWitSvid, paths.fetchWitBundles]) stream(path, declineStream)
  for (const [path, reason] of [
    [paths.fetchJwtSvid, noJwtSvid],
    [paths.validateJwtSvid, noJwtKeys]
  ] as const) {
    server.register(path, decline(jwtBundles === undefined ? notOffered : reason), asBytes, asRequest, "unary")
  }
  return server
}
