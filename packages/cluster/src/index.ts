/**
 * @since 0.1.0
 */
export * as ClusterStorage from "./ClusterStorage.js"
export * as RunnerIdentityError from "./RunnerIdentityError.js"
export * as RunnerPeers from "./RunnerPeers.js"
export * as SecureHttpRunner from "./SecureHttpRunner.js"
export * as SecureSocketRunner from "./SecureSocketRunner.js"
