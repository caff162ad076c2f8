/** What the processes of the cluster share: the entity, who may be where, and what a process stands on. */
import { ClusterStorage, RunnerPeers } from "@agentweave/cluster"
import { PeerMatcher, SpiffeId } from "@agentweave/spiffe"
import { NodeConnector } from "@agentweave/transport-node"
import { WorkloadApi } from "@agentweave/workload-api"
import { ClusterSchema, Entity, RunnerAddress, ShardingConfig } from "@effect/cluster"
import { Rpc } from "@effect/rpc"
import { Layer, Option, Schema } from "effect"

/** An account takes each entry once, by its key, and says which runner took it. */
export const Account = Entity.make("Account", [
  Rpc.make("Enter", { payload: { key: Schema.String }, success: Schema.Number, primaryKey: ({ key }) => key })
]).annotateRpcs(ClusterSchema.Persisted, true)

export const runnerId = (number: number): string => `spiffe://example.org/runner/${number}`
export const clientId = "spiffe://example.org/client"
export const strangerId = "spiffe://example.org/stranger"

/** Who may send messages: the runners, and the program that has no shards. */
export const members: ReadonlyArray<string> = [1, 2, 3, 4].map(runnerId).concat(clientId)

export const oneOf = (ids: ReadonlyArray<string>): PeerMatcher.PeerMatcher => PeerMatcher.oneOf(ids.map(SpiffeId.make))

export interface Place {
  /** Of the database, and of what the accounts have taken. */
  readonly folder: string
  /** The ports of the runners, in the order of their IDs. */
  readonly ports: ReadonlyArray<number>
  /** Of this process; one that only sends has none. */
  readonly port?: number | undefined
}

export const host = "127.0.0.1"

/** Who must be at which address. */
export const idAt = ({ ports }: Place, port: number): string | undefined =>
  ports.includes(port) ? runnerId(ports.indexOf(port) + 1) : undefined

/** Short intervals: a runner that is gone is missed within seconds. */
const config = (port: number | undefined) =>
  ShardingConfig.layer({
    runnerAddress: Option.map(Option.fromNullable(port), (port) => RunnerAddress.make(host, port)),
    shardsPerGroup: 30,
    shardLockRefreshInterval: "1 second",
    shardLockExpiration: "5 seconds",
    runnerHealthCheckInterval: "1 second",
    refreshAssignmentsInterval: "500 millis",
    entityMessagePollInterval: "500 millis",
    entityTerminationTimeout: "2 seconds"
  })

/** The identity is that of the Workload API at the endpoint. */
export const layerPlatform = (place: Place, endpoint: string, peers = (port: number) => idAt(place, port)) =>
  Layer.mergeAll(
    ClusterStorage.layer({ file: `${place.folder}/cluster.db` }),
    RunnerPeers.layer(({ port }) => peers(port)),
    NodeConnector.layer
  ).pipe(Layer.provideMerge(config(place.port)), Layer.provideMerge(WorkloadApi.layer({ endpoint })))
