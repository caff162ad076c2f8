/**
 * The refusal of a configuration.
 *
 * @since 0.1.0
 */
export * from "@agentweave/spiffe/InvalidConfigError"
