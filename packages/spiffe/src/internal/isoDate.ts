/** A moment, in milliseconds since the epoch, for people: ISO 8601 in UTC. */
export const isoDate = (millis: number): string => new Date(millis).toISOString()
