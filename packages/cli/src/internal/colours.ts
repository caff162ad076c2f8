/** Colours, where the output may have them. */

const code = (number: number) => (text: string) => `\u001b[${number}m${text}\u001b[0m`

/** Ways to set off a text. Each gives the text as it is where there are no colours. */
export interface Colours {
  readonly strong: (text: string) => string
  readonly muted: (text: string) => string
  readonly good: (text: string) => string
  readonly warn: (text: string) => string
  readonly bad: (text: string) => string
}

const asItIs = (text: string): string => text

export const coloursFor = (hasColours: boolean): Colours =>
  hasColours
    ? { strong: code(1), muted: code(2), good: code(32), warn: code(33), bad: code(31) }
    : { strong: asItIs, muted: asItIs, good: asItIs, warn: asItIs, bad: asItIs }
