import { WaybillError } from '../../core/errors.ts'
import type { PulsarOptions } from './options.ts'
import type { PulsarLike, PulsarMessageIdsLike } from './pulsar-like.ts'

/** The part of the package `pulsar-client` that is used here. */
export interface PulsarPackageLike {
  readonly Client: new (config: PulsarClientConfig) => PulsarLike
  readonly AuthenticationToken: new (params: { token: () => Promise<string> }) => object
  readonly MessageId: PulsarMessageIdsLike
}

export interface PulsarClientConfig {
  readonly serviceUrl: string
  readonly operationTimeoutSeconds: number
  readonly connectionTimeoutMs: number
  readonly authentication?: object
  readonly tlsTrustCertsFilePath?: string
  readonly tlsValidateHostname?: boolean
}

const PACKAGE: string = 'pulsar-client'

/** Loads it, wherever it is installed. Not named as text, so that whoever bundles or checks this needs no such package. */
export async function loadNativePackage(): Promise<PulsarPackageLike> {
  const loaded: unknown = await import(PACKAGE)
  const found = typeof loaded === 'object' && loaded !== null && 'default' in loaded ? loaded.default : loaded
  if (typeof found === 'object' && found !== null && 'Client' in found && 'MessageId' in found) return found as PulsarPackageLike
  throw new WaybillError('UNSUPPORTED', 'the package "pulsar-client" is not what this adapter knows', {
    allowed: 'version 1',
    where: 'pulsar transport',
  })
}

/** A client of the official package. It looks after its connections itself. */
export function createNativeClient({ Client, AuthenticationToken }: PulsarPackageLike, options: PulsarOptions): PulsarLike {
  const { serviceUrl, requestTimeoutMs, token, tls } = options
  return new Client({
    serviceUrl: serviceUrl.href.replace(/\/$/, ''),
    operationTimeoutSeconds: Math.max(1, Math.ceil(requestTimeoutMs / 1000)),
    connectionTimeoutMs: requestTimeoutMs,
    ...(token === undefined ? {} : { authentication: new AuthenticationToken({ token }) }),
    ...(tls.caPath === undefined ? {} : { tlsTrustCertsFilePath: tls.caPath }),
    ...(tls.enabled ? { tlsValidateHostname: tls.validateHostname } : {}),
  })
}
