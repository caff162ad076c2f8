/**
 * @since 0.1.0
 */
export * as Activity from "./Activity.js"
export * as Inspector from "./Inspector.js"
export * as RefusalHint from "./RefusalHint.js"
export * as Snapshot from "./Snapshot.js"
