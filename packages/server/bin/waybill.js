#!/usr/bin/env node
// Plain JavaScript without static imports that an older Node lacks, so that an older Node gets a sentence instead of a syntax error.
import { existsSync } from 'node:fs'
import { sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE_MIN = [22, 22]

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
  process.stderr.write(`waybill needs Node ${NODE_MIN.join('.')} or newer, got ${process.versions.node}\n`)
  process.exit(2)
}

// Most of a busy relay's memory is V8's young generation, which can be limited only as a process begins: so it begins again, as the same process. Not where
// that can't be done, or where somebody has chosen for himself.
const YOUNG = '--max-semi-space-size'
const isChosen = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) => text.includes(YOUNG))
if (process.argv[2] === 'relay' && !isChosen && !process.connected && process.platform !== 'win32' && process.execve !== undefined)
  process.execve(process.execPath, [process.execPath, `${YOUNG}=16`, ...process.execArgv, ...process.argv.slice(1)], process.env)

const source = new URL('../src/main.ts', import.meta.url)
const path = fileURLToPath(source)
// From a checkout the TypeScript runs as it is; Node does not strip types below node_modules, where the built files are.
const fromSource = existsSync(path) && !path.includes(`${sep}node_modules${sep}`)
const { enableCompileCache, registerHooks } = await import('node:module')
// The demo starts this file again after each kill; with the cache a start takes a quarter of the time.
enableCompileCache()
if (fromSource) {
  const checkout = new URL('../../../', import.meta.url).href
  registerHooks({
    // Only for files of the checkout: an application given by --app may have the packed library, which has no source.
    resolve: (specifier, context, nextResolve) =>
      context.parentURL?.startsWith(checkout) && !context.parentURL.includes('/node_modules/')
        ? nextResolve(specifier, { ...context, conditions: [...context.conditions, 'waybill:source'] })
        : nextResolve(specifier, context),
  })
}
const { main } = await import(fromSource ? source.href : new URL('../dist/main.js', import.meta.url).href)
process.exitCode = await main(process.argv.slice(2))
// A command has closed what it opened. Where it could not (a database that does not answer), what is left must not keep the process for ever.
setTimeout(() => process.exit(), 2_000).unref()
