import { hash } from "node:crypto"

/** How a record's line begins: its place in the chain. */
export const placeOf = (seq: number, prev: string): string => `{"seq":${seq},"prev":"${prev}",`

/** SHA-256 of a record's line, without its newline. */
export const hashOf = (line: string | Uint8Array): string => hash("sha256", line, "hex")
