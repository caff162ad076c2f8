/** The port of an `https:` or `wss:` URL. */
export const portOf = ({ port }: URL): number => (port === "" ? 443 : Number(port))
