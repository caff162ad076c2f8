/** The host of a URL as sockets take it: an IPv6 address without brackets. */
export const hostOf = (hostname: string): string => hostname.replace(/^\[|\]$/g, "")

/** The port of an `https:` or `wss:` URL. */
export const portOf = ({ port }: URL): number => (port === "" ? 443 : Number(port))
