import * as Either from "effect/Either"

/**
 * A bundle endpoint's URL: `https:`, without user information (SPIFFE_Federation sections 5.2.1.1 and 5.2.2.1). A fragment
 * is dropped. The Left says what was expected.
 */
export const endpointUrl = (text: string, base?: URL): Either.Either<URL, string> => {
  if (!URL.canParse(text, base?.href))
    return Either.left(`expected an https: URL, got ${JSON.stringify(text.slice(0, 256))}`)
  const url = new URL(text, base)
  if (url.protocol !== "https:") return Either.left(`expected an https: URL, got ${url.protocol}//${url.host}`)
  if (url.username !== "" || url.password !== "") return Either.left("expected a URL without user information")
  url.hash = ""
  return Either.right(url)
}

/** As it stands in reports: a query may be confidential. */
export const describeUrl = (url: URL): string => `${url.origin}${url.pathname}`
