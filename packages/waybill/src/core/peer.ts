import { WaybillError } from './errors.ts'

/** Loads an optional package, late. @throws WaybillError `PEER_MISSING` */
export async function requirePeer<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    throw new WaybillError(
      'PEER_MISSING',
      `this adapter needs the package "${name}": install it with \`npm install ${name}\`, or hand in a client of your own`,
      { where: name, cause },
    )
  }
}
