// Draws the Mermaid diagrams of the guides as SVG files, which the site shows: pages that load a renderer need a network when they
// are read. `make diagrams` runs this after a diagram has changed; tests/docs/test_diagrams.py finds files that are out of date.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, docs] = process.argv.slice(2);
const { renderMermaidSVG } = await import(pathToFileURL(join(modules, "node_modules/beautiful-mermaid/dist/index.js")));
const folder = join(docs, "diagrams");

for (const file of readdirSync(folder)) if (file.endsWith(".svg")) rmSync(join(folder, file));
for (const page of readdirSync(docs).filter((name) => name.endsWith(".md"))) {
  const blocks = [...readFileSync(join(docs, page), "utf8").matchAll(/^```mermaid\n(.*?)^```$/gms)];
  blocks.forEach(([, source], index) => {
    const hash = createHash("sha256").update(source).digest("hex");
    const svg = renderMermaidSVG(source, { transparent: true })
      // No fonts from elsewhere, and no rules for the other texts of the page.
      .replace(/ *@import url\(.*\n/, "")
      .replace(/^ *text \{.*\n/m, "")
      .replace(/ *\/\*.*\*\/\n/, "")
      .replace("  svg {", "  svg.diagram {")
      // The colours of the page, so that a diagram follows its light and its dark theme.
      .replace(/style="--bg:[^"]*"/, `class="diagram" role="img" data-source="${hash}"`)
      .replace(/(\d+\.\d)\d{3,}/g, "$1");
    const name = `${basename(page, ".md")}-${index + 1}.svg`;
    writeFileSync(join(folder, name), svg.trimEnd() + "\n");
    console.log(`docs/diagrams/${name}`);
  });
}
