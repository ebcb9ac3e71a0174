import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { copyFile, rename, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { promisify } from 'node:util'

// Makes the Prisma client of this example: what `npx prisma generate` does, and only where it is missing or old.
//
// Prisma downloads a "schema engine" for its migrations, and asks for it even where it is not needed. Any file will do to say that it is there, so that
// this works without a network; the example's tables are made with SQL instead of `prisma migrate`.

const here = import.meta.dirname
const schema = join(here, 'schema.prisma')
const generated = join(here, 'generated')
const stamp = join(generated, 'made-from.prisma')

/** Gives back the path of the client. Safe to call by several processes at once. */
export async function generatePrismaClient(): Promise<string> {
  const client = join(generated, 'client.ts')
  if (isCurrent()) return client
  const prisma = createRequire(import.meta.url).resolve('prisma/build/index.js')
  // Made aside and put in place at once: another process may be reading the old one.
  const aside = join(here, `generated-${process.pid}`)
  const draft = join(here, `draft-${process.pid}.prisma`)
  try {
    await writeFile(draft, readFileSync(schema, 'utf8').replace('"./generated"', JSON.stringify(`./generated-${process.pid}`)))
    await promisify(execFile)(process.execPath, [prisma, 'generate', '--schema', draft], {
      cwd: here,
      env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, CHECKPOINT_DISABLE: '1' },
      timeout: 120_000,
    })
    await copyFile(schema, join(aside, 'made-from.prisma'))
    await putInPlace(aside)
  } finally {
    await rm(aside, { recursive: true, force: true })
    await rm(draft, { force: true })
  }
  return client
}

/** Whether the client is there, and made from this schema. */
function isCurrent(): boolean {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === readFileSync(schema, 'utf8')
}

async function putInPlace(aside: string): Promise<void> {
  try {
    await rename(aside, generated)
  } catch (error) {
    // Another process was first, with the same: it may be in use already.
    if (isCurrent()) return
    if (!existsSync(generated)) throw error
    await rm(generated, { recursive: true, force: true })
    await rename(aside, generated)
  }
}

if (import.meta.main) console.log(await generatePrismaClient())
