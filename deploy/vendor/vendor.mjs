// Copies the console's libraries from their npm packages: `make vendor`. The lock file names version and hash of each package;
// npm refuses one that differs. The result is the same at each run. What users run needs neither Node nor this folder.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, posix, relative } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const TARGET = join(HERE, "../../api/console/static/vendor");
const LICENCE_NAME = /^(?:MIT-)?LICEN[CS]E(?:-MIT)?(?:\.(?:md|txt))?$/i;

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));
const writeJson = (path, value) => writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);

// npm writes addresses of sponsors into the lock file; ours contains none.
function readLock() {
  const path = join(HERE, "package-lock.json");
  const lock = readJson(path);
  for (const entry of Object.values(lock.packages)) delete entry.funding;
  if (JSON.stringify(lock).includes("://")) throw new Error(`${path} contains an address`);
  writeJson(path, lock);
  return lock;
}

// All packages of the lock file, in a temporary folder without a script of theirs being run.
function install() {
  const folder = mkdtempSync(join(tmpdir(), "console-libraries-"));
  for (const name of ["package.json", "package-lock.json", ".npmrc"]) cpSync(join(HERE, name), join(folder, name));
  execFileSync("npm", ["ci", "--ignore-scripts"], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  return folder;
}

// The page has no import map, so a bare import becomes the path of the file; a source map would be asked for and not found.
function adapt(text, file, imports) {
  const withoutMap = text.replace(/\n?(?:\/\/# sourceMappingURL=\S+|\/\*# sourceMappingURL=\S+ \*\/)\s*$/, "\n");
  return withoutMap.replace(/\b(from ?)(["'])([^"'.][^"']*)\2/g, (whole, from, quote, name) => {
    if (!imports[name]) return whole;
    const path = posix.relative(posix.dirname(file), imports[name]);
    return `${from}${quote}${path.startsWith(".") ? path : `./${path}`}${quote}`;
  });
}

// The folder of a package is its name without the scope.
const folderOf = (name) => name.split("/").at(-1);

function licenceOf(name, packageFolder) {
  const own = join(HERE, "licences", `${folderOf(name)}.txt`);
  if (existsSync(own)) return readFileSync(own, "utf8");
  const found = readdirSync(packageFolder).filter((file) => LICENCE_NAME.test(file)).sort()[0];
  if (!found) throw new Error(`${name} has no licence file: add licences/${folderOf(name)}.txt from its repository`);
  return readFileSync(join(packageFolder, found), "utf8");
}

// Fills the folder `result`, and returns what the manifest lists.
function copyPackages(lock, installed, result) {
  const { files, imports, notes, dependencies } = readJson(join(HERE, "package.json"));
  const write = (path, text) => {
    mkdirSync(dirname(join(result, path)), { recursive: true });
    writeFileSync(join(result, path), text);
    return createHash("sha256").update(text).digest("hex");
  };
  const packages = {};
  for (const [path, { version, integrity, license }] of Object.entries(lock.packages)) {
    if (path === "") continue;
    const name = path.slice("node_modules/".length);
    const packageFolder = join(installed, path);
    if (Boolean(files[name]) !== Boolean(dependencies[name]) || (!files[name] && !notes[name]))
      throw new Error(`package.json: ${name} needs an entry in "files" (and "dependencies") or "notes"`);
    // A package without files of its own is part of another one: its licence lies beside the others.
    const licence = files[name] ? `${folderOf(name)}/LICENSE.txt` : `licences/${folderOf(name)}.txt`;
    const hashes = { [licence]: write(licence, licenceOf(name, packageFolder)) };
    for (const [source, file] of Object.entries(files[name] ?? {}))
      hashes[file] = write(file, adapt(readFileSync(join(packageFolder, source), "utf8"), file, imports));
    packages[name] = { version, integrity, license, licence_file: licence, ...(notes[name] && { note: notes[name] }), files: hashes };
  }
  return packages;
}

function main() {
  const lock = readLock();
  const result = `${TARGET}.new`;
  const installed = install();
  try {
    rmSync(result, { recursive: true, force: true });
    const packages = copyPackages(lock, installed, result);
    cpSync(join(TARGET, "README.md"), join(result, "README.md"));
    writeJson(join(result, "manifest.json"), { packages });
    rmSync(TARGET, { recursive: true });
    renameSync(result, TARGET);
    console.log(`${Object.keys(packages).length} packages in ${relative(process.cwd(), TARGET)}`);
  } finally {
    rmSync(installed, { recursive: true, force: true });
    rmSync(result, { recursive: true, force: true });
  }
}

main();
