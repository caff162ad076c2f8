// The default theme without its fonts: the system's are there already.
import theme from "vitepress/theme-without-fonts"
import "./style.css"

/** The first page has no `main` of its own in the default theme, the others do. The build sets it for the page that is loaded. */
const markMain = () => {
  const content = document.querySelector("#VPContent")
  if (content?.classList.contains("is-home")) content.setAttribute("role", "main")
  else content?.removeAttribute("role")
}

export default {
  extends: theme,
  enhanceApp: ({ router }) => {
    if (typeof document === "undefined") return
    const before = router.onAfterRouteChange
    router.onAfterRouteChange = async (to) => {
      await before?.(to)
      requestAnimationFrame(markMain)
    }
  }
}
