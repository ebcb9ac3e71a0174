import { WaybillError } from '../../core/errors.ts'

/** What was asked, or `TIMEOUT`: whoever reads metrics does not wait for ever. */
export async function inTime<T>(asked: Promise<T>, timeoutMs: number, who: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new WaybillError('TIMEOUT', `${who} did not answer in time`, { where: 'metrics' })), timeoutMs)
  })
  try {
    return await Promise.race([asked, late])
  } finally {
    clearTimeout(timer)
  }
}
