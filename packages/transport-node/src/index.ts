/**
 * @since 0.1.0
 */
export * as NodeConnector from "./NodeConnector.js"
export * as NodeSecureServer from "./NodeSecureServer.js"
