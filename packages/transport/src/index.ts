/**
 * @since 0.1.0
 */
export * as AuditEvent from "./AuditEvent.js"
export * as AuditLog from "./AuditLog.js"
export * as CircuitBreaker from "./CircuitBreaker.js"
export * as CircuitBreakerConfig from "./CircuitBreakerConfig.js"
export * as CircuitBreakerMetrics from "./CircuitBreakerMetrics.js"
export * as CircuitOpenError from "./CircuitOpenError.js"
export * as Connector from "./Connector.js"
export * as ConnectorResponse from "./ConnectorResponse.js"
export * as InvalidConfigError from "./InvalidConfigError.js"
export * as PeerIdentity from "./PeerIdentity.js"
export * as SecureChannel from "./SecureChannel.js"
export * as TransportConfig from "./TransportConfig.js"
export * as TransportError from "./TransportError.js"
export * as TripRule from "./TripRule.js"
