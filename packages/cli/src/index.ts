/**
 * @since 0.1.0
 */

export * as Agentweave from "./Agentweave.js"
export * as AuditTail from "./AuditTail.js"
export * as AuditVerify from "./AuditVerify.js"
export * as DevAgent from "./DevAgent.js"
export * as Explain from "./Explain.js"
export * as ExplainRefusals from "./ExplainRefusals.js"
export * as Inspect from "./Inspect.js"
export * as Probe from "./Probe.js"
export * as ShowBundle from "./ShowBundle.js"
export * as ShowSvid from "./ShowSvid.js"
export * as UsageError from "./UsageError.js"
