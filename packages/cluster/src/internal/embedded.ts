/** An SQLite database in a file as a `SqlClient`: several processes of one machine can have it open. */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
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
      attempt(`expected ${file} to take a write-ahead log`, () => database.exec("PRAGMA journal_mode = WAL"))
    )
  )

const failed = "expected the statement to be executed"

const isControl = (sql: string): boolean => /^\s*(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b/i.test(sql)

const isRead = (sql: string): boolean => /^\s*SELECT\b/i.test(sql)

/**
 * A statement that has to wait for another process stays open in `libsql`, and no transaction can be committed while one is
 * open. So the lock is taken first, by `exec`, which closes what it opens; then no statement has to wait.
 */
const alone = <A>(database: Libsql.Database, sql: string, run: () => A): Effect.Effect<A, SqlError> =>
  Effect.acquireUseRelease(
    attempt(failed, () => database.exec(isRead(sql) ? "BEGIN" : "BEGIN IMMEDIATE")),
    () =>
      Effect.zipRight(
        attempt(failed, () => database.exec("SELECT 1 FROM sqlite_schema LIMIT 1")),
        attempt(failed, run)
      ),
    (_, exit) => Effect.orDie(attempt(failed, () => database.exec(Exit.isSuccess(exit) ? "COMMIT" : "ROLLBACK")))
  )

const connectionOf = (database: Libsql.Database): Connection => {
  const rows = (sql: string, params: ReadonlyArray<unknown>, raw: boolean) =>
    Effect.flatMap(SqlClient.SafeIntegers, (safeIntegers) => {
      const run = (): ReadonlyArray<unknown> => {
        const statement = database.prepare<[ReadonlyArray<unknown>]>(sql).safeIntegers(safeIntegers)
        if (statement.reader) return statement.raw(raw).all(params)
        statement.run(params)
        return []
      }
      if (isControl(sql)) {
        return attempt(failed, () => {
          database.exec(sql)
          return []
        })
      }
      return database.inTransaction ? attempt(failed, run) : alone(database, sql, run)
    })
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
