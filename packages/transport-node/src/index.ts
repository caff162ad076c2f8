/**
 * @since 0.1.0
 */
export * as AuditAnchor from "./AuditAnchor.js"
export * as AuditFile from "./AuditFile.js"
export * as BundleEndpoint from "./BundleEndpoint.js"
export * as BundleEndpointError from "./BundleEndpointError.js"
export * as BundleEndpointEvent from "./BundleEndpointEvent.js"
export * as ConnectionExplanation from "./ConnectionExplanation.js"
export * as FederatedBundles from "./FederatedBundles.js"
export * as IdentityFileEvent from "./IdentityFileEvent.js"
export * as NodeAuditLog from "./NodeAuditLog.js"
export * as NodeConnector from "./NodeConnector.js"
export * as NodeDispatcher from "./NodeDispatcher.js"
export * as NodeIdentity from "./NodeIdentity.js"
export * as NodeSecureAgent from "./NodeSecureAgent.js"
export * as NodeSecureServer from "./NodeSecureServer.js"
export * as NodeSecureSocket from "./NodeSecureSocket.js"
export * as NodeSecureSocketServer from "./NodeSecureSocketServer.js"
