// Modules of the API reference are called after their packages, and not after their folders.
import { Converter } from "typedoc"

export const load = (app) => {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const module of project.children ?? []) module.name = `@agentweave/${module.name.replace(/\/src$/, "")}`
  })
}
