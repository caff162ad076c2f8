import { type KeyObject, sign } from "node:crypto"

/** One DER element: where its content begins and ends. */
const element = (der: Buffer, at: number): { readonly from: number; readonly end: number } => {
  const first = der[at + 1] ?? 0
  if (first < 0x80) return { from: at + 2, end: at + 2 + first }
  const octets = first & 0x7f
  const length = der.readUIntBE(at + 2, octets)
  return { from: at + 2 + octets, end: at + 2 + octets + length }
}

const encode = (tag: number, content: Buffer): Buffer => {
  const { length } = content
  const header =
    length < 0x80 ? [tag, length] : length < 0x100 ? [tag, 0x81, length] : [tag, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(header), content])
}

/**
 * The same certificate under other serial numbers, each signed by the same P-256 issuer: certificates that no verifier
 * has seen, a thousand a second. `change` may change more, and no length.
 */
export const reissue = (
  der: Uint8Array,
  issuer: KeyObject,
  count: number,
  change?: (tbs: Buffer, i: number) => void
): ReadonlyArray<Buffer> => {
  const whole = Buffer.from(der)
  const { from } = element(whole, 0)
  const tbsEnd = element(whole, from).end
  const tbs = Buffer.from(whole.subarray(from, tbsEnd))
  const algorithm = whole.subarray(tbsEnd, element(whole, tbsEnd).end)
  // TBSCertificate (RFC 5280 section 4.1.2): version, then the serial number.
  const serial = element(tbs, element(tbs, element(tbs, 0).from).end)
  return Array.from({ length: count }, (_, i) => {
    // The last octets only, so that length and sign stay as they are.
    tbs.writeUInt32BE(i, serial.end - 4)
    change?.(tbs, i)
    const signature = Buffer.concat([Buffer.from([0]), sign("sha256", tbs, issuer)])
    return encode(0x30, Buffer.concat([tbs, algorithm, encode(0x03, signature)]))
  })
}
