/**
 * @since 0.1.0
 */
export * as InvalidEndpointError from "./InvalidEndpointError.js"
export * as WorkloadApi from "./WorkloadApi.js"
export * as WorkloadApiClient from "./WorkloadApiClient.js"
export * as WorkloadApiError from "./WorkloadApiError.js"
export * as WorkloadApiEvent from "./WorkloadApiEvent.js"
export * as WorkloadApiServer from "./WorkloadApiServer.js"
export * as WorkloadApiServerError from "./WorkloadApiServerError.js"
export * as WorkloadEndpoint from "./WorkloadEndpoint.js"
export * as WorkloadMessage from "./WorkloadMessage.js"
