import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { armCrashpoint } from 'waybill/testing'
import type { PlannedKill } from './plan.ts'

/** A kill that took place, by the last words of the process that died of it. */
export interface LastWords {
  /** Place in the plan, from 0. */
  readonly index: number
  readonly run: number
  readonly point: string
  readonly hit: number
}

const fileOf = (folder: string, index: number): string => join(folder, `kill-${index}`)

/** The kills that took place, in the order of the plan. */
export function readLastWords(folder: string): readonly LastWords[] {
  const words: LastWords[] = []
  for (let index = 0; existsSync(fileOf(folder, index)); index++) {
    const [run, point = '', hit] = readFileSync(fileOf(folder, index), 'utf8').split(' ')
    words.push({ index, run: Number(run), point, hit: Number(hit) })
  }
  return words
}

/** Takes kill `index` for the process of this `run`; false where another one was first. */
export function takeKill(folder: string, run: number, index: number, { point, hit }: PlannedKill): boolean {
  try {
    writeFileSync(fileOf(folder, index), `${run} ${point} ${hit}`, { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Kills this process where the plan says so. Of several processes that look out for the same kill, the first one that comes to its point dies. */
export interface Killer {
  /** Tells how many invoices are published in all. */
  see(invoices: number): void
}

export function createKiller(folder: string, run: number, kills: readonly PlannedKill[]): Killer {
  let index = 0
  let disarm: (() => void) | undefined
  return {
    see(invoices) {
      while (index < kills.length && existsSync(fileOf(folder, index))) {
        disarm?.()
        disarm = undefined
        index++
      }
      const [at, kill] = [index, kills[index]]
      if (kill === undefined || disarm !== undefined || invoices < kill.afterInvoices) return
      disarm = armCrashpoint(kill.point, {
        hit: kill.hit,
        action() {
          if (takeKill(folder, run, at, kill)) process.kill(process.pid, 'SIGKILL')
        },
      })
    },
  }
}
