/**
 * Audit events in two places: a signed file, in which nothing is lost, and an OpenTelemetry collector, where an organisation
 * looks. A collector that does not answer costs the file nothing.
 */

import { AuditLog } from "@agentweave/transport"
import { NodeAuditLog } from "@agentweave/transport-node"
import * as OtlpLogger from "@effect/opentelemetry/OtlpLogger"
import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import { FetchHttpClient } from "@effect/platform"
import { Layer } from "effect"

/** `collector` is the URL of its logs, such as `http://localhost:4318/v1/logs`. */
export const audit = (path: string, collector: string) =>
  AuditLog.layerTee(
    NodeAuditLog.layerFile({ path }),
    AuditLog.layerFromLogger(OtlpLogger.make({ url: collector, resource: { serviceName: "web" } }))
  ).pipe(Layer.provide([FetchHttpClient.layer, OtlpSerialization.layerJson]))
