export * from "@agentweave/spiffe/OptionsDecoder"
