/**
 * @since 0.1.0
 */
export * as InvalidConfigError from "./InvalidConfigError.js"
export * as TransportConfig from "./TransportConfig.js"
export * as TransportError from "./TransportError.js"
