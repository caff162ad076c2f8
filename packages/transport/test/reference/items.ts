/**
 * Every documented item of AgentWeave's `agentweave.transport`, by the section of its reference. Each has one row, in the
 * tests beside this file: the type of `rows` asks for all of them and for no other.
 */
import { describe, it } from "@effect/vitest"
import type { Effect, Scope } from "effect"

export const items = {
  "Security guarantees": [
    "mutual TLS is mandatory",
    "SPIFFE ID verification on all connections",
    "TLS 1.3 preferred, 1.2 minimum",
    "automatic certificate rotation",
    "full audit logging of all connections"
  ],
  SecureChannel: [
    "import",
    "identity_provider",
    "peer_spiffe_id",
    "config is optional",
    "config: defaults if there is none",
    "ValueError: peer_spiffe_id does not start with spiffe://",
    "ValueError: peer_spiffe_id is malformed",
    "property peer_spiffe_id",
    "property my_spiffe_id",
    "request: GET",
    "request: POST",
    "request: PUT",
    "request: DELETE",
    "request: url",
    "request: kwargs",
    "request: returns the response",
    "request: retries if configured",
    "request: raises on failure",
    "request: raises PeerVerificationError",
    "get",
    "get: kwargs",
    "post",
    "post: json",
    "post: data",
    "post: headers",
    "put",
    "put: kwargs",
    "delete",
    "delete: kwargs",
    "close",
    "async with",
    "example"
  ],
  TransportConfig: [
    "import",
    "tls_min_version: default TLSv1_3",
    "tls_min_version: TLSv1_2",
    "tls_max_version: default TLSv1_3",
    "timeout: default 30 seconds",
    "timeout: limits a request",
    "verify_peer: default True",
    "verify_peer: always True",
    "retry_config: default None",
    "retry_config: is used",
    "ValueError: verify_peer is False",
    "ValueError: tls_min_version is less than TLSv1_2",
    "ValueError: timeout is not positive"
  ],
  ConnectionPool: [
    "import",
    "identity_provider",
    "config is optional",
    "transport_config is optional",
    "transport_config: for new channels",
    "start: cleanup in the background",
    "start: health checks in the background",
    "stop: background tasks end",
    "stop: all connections are closed",
    "acquire: yields a SecureChannel",
    "acquire: target_id",
    "acquire: ValueError for a target_id without spiffe://",
    "acquire: PoolExhaustedError",
    "acquire: a context manager",
    "acquire: an idle connection is used again",
    "release",
    "close_all",
    "total_connections",
    "total_acquisitions",
    "total_creations",
    "total_cleanups",
    "pool_sizes",
    "target_count",
    "thread-safe",
    "example"
  ],
  PoolConfig: [
    "import",
    "max_connections_per_target: default 10",
    "max_connections_per_target: bounds a target",
    "max_total_connections: default 100",
    "max_total_connections: bounds all targets",
    "idle_timeout: default 60 seconds",
    "idle_timeout: closes an idle connection",
    "health_check_interval: default 30 seconds",
    "health_check_interval: time between health checks",
    "cleanup_interval: default 10 seconds",
    "cleanup_interval: time between cleanups",
    "ValueError: max_connections_per_target",
    "ValueError: max_total_connections",
    "ValueError: idle_timeout",
    "ValueError: health_check_interval",
    "ValueError: cleanup_interval"
  ],
  CircuitBreaker: [
    "import",
    "name",
    "config",
    "state: CLOSED",
    "state: OPEN",
    "state: HALF_OPEN",
    "CLOSED: requests pass through",
    "OPEN: requests fail fast",
    "HALF_OPEN: after the timeout",
    "HALF_OPEN: test requests",
    "metrics",
    "metrics: a copy",
    "call: runs the function",
    "call: arguments",
    "call: returns the result",
    "call: CircuitOpenError",
    "call: raises what the function raises",
    "reset",
    "example"
  ],
  CircuitBreakerConfig: [
    "import",
    "failure_threshold: default 5",
    "failure_threshold: opens the circuit",
    "success_threshold: default 2",
    "success_threshold: closes the circuit",
    "timeout: default 30 seconds",
    "timeout: before recovery is tried",
    "excluded_exceptions: default, none of the function's own",
    "excluded_exceptions: do not count",
    "ValueError: failure_threshold",
    "ValueError: success_threshold",
    "ValueError: timeout"
  ],
  CircuitState: ["import", "CLOSED", "OPEN", "HALF_OPEN"],
  CircuitBreakerRegistry: ["get_breaker"],
  RetryPolicy: [
    "import",
    "config",
    "execute: runs the function",
    "execute: arguments",
    "execute: returns the result",
    "execute: retries",
    "execute: raises the last exception",
    "get_stats",
    "exponential backoff",
    "jitter",
    "example"
  ],
  RetryConfig: [
    "import",
    "max_retries: default 3",
    "max_retries: bounds the retries",
    "base_delay: default 1 second",
    "base_delay: the first delay",
    "max_delay: default 30 seconds",
    "max_delay: the longest delay",
    "exponential_base: default 2",
    "exponential_base: the growth",
    "jitter: default True",
    "jitter: False",
    "retryable_exceptions: ConnectionError",
    "retryable_exceptions: TimeoutError",
    "retryable_exceptions: asyncio.TimeoutError",
    "retryable_exceptions: chosen",
    "ValueError: max_retries",
    "ValueError: base_delay",
    "ValueError: max_delay",
    "ValueError: exponential_base",
    "delay: min(base_delay * exponential_base ^ attempt, max_delay)",
    "delay: with jitter between 0 and the calculated value"
  ],
  PeerVerificationError: ["import", "raised when verification fails", "expected_id", "actual_id", "actual_id: None"],
  ConnectionPoolError: ["import", "base of the pool's errors"],
  PoolExhaustedError: ["import", "raised when exhausted", "is a ConnectionPoolError", "target_id", "max_connections"],
  CircuitOpenError: ["import", "raised when open", "target", "metrics"],
  "Usage patterns": [
    "basic secure channel",
    "connection pooling",
    "circuit breaker protection",
    "retry with backoff",
    "combined pattern"
  ]
} as const

type Items = typeof items

/** The rows of a section: one for each of its items. */
export const rows = <Section extends keyof Items>(
  section: Section,
  tests: { readonly [Item in Items[Section][number]]: Effect.Effect<unknown, unknown, Scope.Scope> }
): void => {
  describe(`the reference: ${section}`, () => {
    for (const [item, test] of Object.entries<Effect.Effect<unknown, unknown, Scope.Scope>>(tests)) {
      it.scoped(item, () => test)
    }
  })
}
