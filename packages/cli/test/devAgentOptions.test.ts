import { parse } from "@agentweave/cli/DevAgent"
import { describe, expect, it } from "@effect/vitest"
import { Duration, Either } from "effect"

const problem = (...args: ReadonlyArray<string>) => Either.getOrElse(Either.flip(parse(args)), () => "none")

describe("the command line of the development agent", () => {
  it("names a trust domain, a socket and its workload", () => {
    expect(parse(["--trust-domain", "dev.local", "--socket", "/tmp/a", "--workload", "/web"])).toStrictEqual(
      Either.right({
        trustDomain: "dev.local",
        sockets: [{ path: "/tmp/a", workloads: ["/web"] }],
        ttl: Duration.minutes(1)
      })
    )
  })

  it("gives each workload to the socket before it", () => {
    const args = "--socket a --workload /web --workload /shop --socket b --workload /api --ttl".split(" ")
    expect(parse([...args, "30 seconds"])).toStrictEqual(
      Either.right({
        trustDomain: "dev.local",
        sockets: [
          { path: "a", workloads: ["/web", "/shop"] },
          { path: "b", workloads: ["/api"] }
        ],
        ttl: Duration.seconds(30)
      })
    )
  })

  it("is refused with the reason", () => {
    expect(problem()).toBe("expected --socket")
    expect(problem("--workload", "/web")).toBe("expected --socket before --workload /web")
    expect(problem("--socket", "a")).toBe("expected --workload after --socket a")
    expect(problem("--socket", "a", "--socket", "b", "--workload", "/w")).toBe("expected --workload after --socket a")
    expect(problem("--socket", "a", "--workload", "web")).toContain("--workload:")
    expect(problem("--socket", "a", "--workload", "/web/")).toContain("PathTrailingSlash")
    expect(problem("--trust-domain", "Dev", "--socket", "a", "--workload", "/w")).toContain("TrustDomainCharacter")
    expect(problem("--socket", "a", "--workload", "/w", "--ttl", "soon")).toContain("--ttl")
    expect(problem("--socket", "a", "--workload", "/w", "--ttl", "1 seconds")).toContain("at least 2 seconds")
    expect(problem("--port", "1")).toContain("--port")
  })
})
