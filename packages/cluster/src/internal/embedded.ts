/** An SQLite database in a file as a `SqlClient`: several processes of one machine can have it open. */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type Libsql from "libsql"

/** Another process is writing. */
const isBusy = ({ cause }: SqlError): boolean =>
  Predicate.hasProperty(cause, "code") && typeof cause.code === "string" && cause.code.startsWith("SQLITE_BUSY")

/** The event loop goes on while another process writes; SQLite's own busy timeout would block it. */
const whileBusy = Schedule.spaced("5 millis").pipe(Schedule.upTo("10 seconds"), Schedule.jittered)

const attempt = <A>(message: string, run: () => A): Effect.Effect<A, SqlError> =>
  Effect.try({ try: run, catch: (cause) => new SqlError({ cause, message }) }).pipe(
    Effect.retry({ while: isBusy, schedule: whileBusy })
  )

const open = (file: string): Effect.Effect<Libsql.Database, SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      // Loaded where it is used: it is native code, which not every platform has.
      try: () => import("libsql"),
      catch: (cause) =>
        new SqlError({ cause, message: "expected the native library of libsql for this platform, got none" })
    }).pipe(
      Effect.flatMap(({ default: Database }) =>
        attempt(`expected a database in ${file}, it cannot be opened`, () => new Database(file, { timeout: 0 }))
      )
    ),
    (database) => Effect.sync(() => database.close())
  ).pipe(
    // Readers do not wait for a writer. A commit is on the disk when it is done: SQLite's default, `synchronous = FULL`.
    Effect.tap((database) =>
      attempt(`expected ${file} to take a write-ahead log`, () => database.prepare("PRAGMA journal_mode = WAL").all())
    )
  )

const connectionOf = (database: Libsql.Database): Connection => {
  const rows = (sql: string, params: ReadonlyArray<unknown>, raw: boolean) =>
    Effect.flatMap(SqlClient.SafeIntegers, (safeIntegers) =>
      attempt("expected the statement to be executed", () => {
        const statement = database.prepare(sql).safeIntegers(safeIntegers)
        if (statement.reader) return statement.raw(raw).all(...params)
        statement.run(...params)
        return []
      })
    )
  const execute: Connection["execute"] = (sql, params, transform) =>
    Effect.map(rows(sql, params, false), (found) => transform?.(found as ReadonlyArray<object>) ?? found)
  return {
    execute,
    executeUnprepared: execute,
    executeRaw: (sql, params) => rows(sql, params, false),
    executeValues: (sql, params) =>
      Effect.map(rows(sql, params, true), (found) => found as ReadonlyArray<ReadonlyArray<unknown>>),
    executeStream: () => Stream.dieMessage("the embedded database has no streams")
  }
}

const make = (file: string) =>
  Effect.gen(function* () {
    const connection = connectionOf(yield* open(file))
    const turn = yield* Effect.makeSemaphore(1)
    // One at a time, a transaction as a whole: a statement of another fiber is not to be part of it.
    const acquirer = Effect.uninterruptibleMask((restore) =>
      Effect.zipRight(
        restore(turn.take(1)),
        Effect.as(
          Effect.addFinalizer(() => turn.release(1)),
          connection
        )
      )
    )
    return yield* SqlClient.make({
      acquirer,
      compiler: Statement.makeCompilerSqlite(),
      // A transaction that began as a reader cannot wait for a writer.
      beginTransaction: "BEGIN IMMEDIATE",
      spanAttributes: [["db.system.name", "sqlite"]]
    })
  })

export const layer = (file: string): Layer.Layer<SqlClient.SqlClient, SqlError> =>
  Layer.scoped(SqlClient.SqlClient, make(file)).pipe(Layer.provide(Reactivity.layer))
