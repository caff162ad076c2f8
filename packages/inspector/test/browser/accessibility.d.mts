import type { Page } from "playwright-core"

type Problems = Promise<ReadonlyArray<string>>

export declare const axeProblems: (page: Page, axeSource: string) => Problems
export declare const keyboardProblems: (page: Page) => Problems
export declare const motionProblems: (page: Page) => Problems
export declare const reflowProblems: (page: Page) => Problems
