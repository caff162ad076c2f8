// The packages that are published, from the ground up.
export const published = [
  "spiffe",
  "transport",
  "transport-node",
  "workload-api",
  "testkit",
  "cluster",
  "inspector",
  "cli"
]
