// Draws the state machine with mermaid; where that fails, the drawing that came with the page stays.
(async () => {
  const source = document.getElementById("source").textContent;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  mermaid.initialize({ startOnLoad: false, securityLevel: "strict", theme: dark ? "dark" : "neutral" });
  const { svg } = await mermaid.render("drawn", source);
  const figure = document.getElementById("figure");
  figure.innerHTML = svg;
  figure.dataset.drawn = "mermaid";
})().catch((error) => console.error("mermaid:", error));
