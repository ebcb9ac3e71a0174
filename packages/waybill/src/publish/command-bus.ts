import { WaybillError } from '../core/errors.ts'
import { newId } from '../core/ids.ts'
import { checkName } from '../core/names.ts'
import { checkFunction } from '../core/options.ts'
import { type SchemaLike, validate } from '../core/schema.ts'
import { currentScope, withScope } from '../core/scope.ts'

type Kind = 'command' | 'query'

/** A request to one handler: what is wanted, and what is needed for it. Its type knows what the handler gives back. */
export interface BusRequest<K extends Kind = Kind, Payload = unknown, Result = unknown> {
  readonly kind: K
  readonly type: string
  readonly payload: Payload
  readonly requestType: BusRequestType<K, Payload, Result>
}

/** A kind of command or query. Call it with a payload to make one. */
export interface BusRequestType<K extends Kind = Kind, Payload = unknown, Result = unknown> {
  (payload: Payload): BusRequest<K, Payload, Result>
  readonly kind: K
  readonly type: string
  readonly schema: SchemaLike<Payload> | undefined
  /** Never there: it carries the result's type. */
  readonly '~result'?: Result
}

/** Something that is to be done. */
export type Command<Payload = unknown, Result = unknown> = BusRequest<'command', Payload, Result>
/** Something that is to be known; it changes nothing. */
export type Query<Payload = unknown, Result = unknown> = BusRequest<'query', Payload, Result>
export type CommandType<Payload = unknown, Result = unknown> = BusRequestType<'command', Payload, Result>
export type QueryType<Payload = unknown, Result = unknown> = BusRequestType<'query', Payload, Result>

export interface RequestOptions<Payload> {
  /** Any Standard Schema (zod, valibot, arktype ...). The handler gets what it gives back. */
  readonly schema?: SchemaLike<Payload>
}

/** Hands each request to the one handler that is registered for its type. */
export interface HandlingBus<K extends Kind> {
  /**
   * Registers the handler of a type, by its definition or its name; the function given back removes it.
   * @throws WaybillError `DUPLICATE` where it has one already; `INVALID_OPTION` where the handler is no function; `INVALID_NAME`
   */
  register<Payload, Result>(
    type: BusRequestType<K, Payload, Result>,
    handler: (payload: NoInfer<Payload>) => NoInfer<Result> | Promise<NoInfer<Result>>,
  ): () => void
  register(type: string, handler: (payload: never) => unknown): () => void
  /**
   * Checks the payload against its schema, runs the handler in the caller's scope (its unit of work, its correlation id, or a new one where
   * there is none) and resolves what it gives back. Rejects with the handler's own error.
   * @throws WaybillError `NO_HANDLER` | `INVALID_PAYLOAD` | `INVALID_OPTION`
   */
  execute<Payload, Result>(request: BusRequest<K, Payload, Result>): Promise<Result>
}

export type CommandBus = HandlingBus<'command'>
export type QueryBus = HandlingBus<'query'>

/** Defines a kind of command. @throws WaybillError `INVALID_NAME` | `INVALID_OPTION` */
export function defineCommand<Payload = void, Result = void>(
  name: string,
  options: RequestOptions<Payload> = {},
): CommandType<Payload, Result> {
  return define<'command', Payload, Result>('command', name, options)
}

/** Defines a kind of query. @throws WaybillError `INVALID_NAME` | `INVALID_OPTION` */
export function defineQuery<Payload = void, Result = unknown>(
  name: string,
  options: RequestOptions<Payload> = {},
): QueryType<Payload, Result> {
  return define<'query', Payload, Result>('query', name, options)
}

/** Commands: exactly one handler each. */
export function createCommandBus(): CommandBus {
  return createRequestBus('command')
}

/** Queries: exactly one handler each. */
export function createQueryBus(): QueryBus {
  return createRequestBus('query')
}

function define<K extends Kind, Payload, Result>(
  kind: K,
  name: string,
  { schema }: RequestOptions<Payload>,
): BusRequestType<K, Payload, Result> {
  checkName(name, `${kind} name`)
  if (schema !== undefined && typeof schema['~standard']?.validate !== 'function') {
    throw new WaybillError('INVALID_OPTION', 'the schema does not implement Standard Schema', {
      allowed: 'zod, valibot, arktype or any other Standard Schema',
      where: `schema of ${name}`,
    })
  }
  const create = (payload: Payload): BusRequest<K, Payload, Result> => ({ kind, type: name, payload, requestType })
  const requestType: BusRequestType<K, Payload, Result> = Object.freeze(Object.assign(create, { kind, type: name, schema }))
  return requestType
}

function createRequestBus<K extends Kind>(kind: K): HandlingBus<K> {
  const handlers = new Map<string, (payload: never) => unknown>()

  function register(type: string | { readonly type: string }, handler: (payload: never) => unknown): () => void {
    const name = checkName(typeof type === 'string' ? type : type?.type, `${kind} name`)
    checkFunction(handler, `handler of ${name}`)
    if (handlers.has(name))
      throw new WaybillError('DUPLICATE', `this ${kind} has a handler already`, {
        got: handler,
        allowed: 'exactly one handler',
        where: name,
      })
    handlers.set(name, handler)
    return () => {
      if (handlers.get(name) === handler) handlers.delete(name)
    }
  }

  async function execute<Payload, Result>(request: BusRequest<K, Payload, Result>): Promise<Result> {
    if (request?.kind !== kind) {
      throw new WaybillError('INVALID_OPTION', `this is no ${kind}`, {
        got: request?.kind,
        allowed: `what a ${kind} definition made`,
        where: 'execute',
      })
    }
    const { type, payload } = request
    const handler = handlers.get(type) as ((payload: Payload) => Result | Promise<Result>) | undefined
    if (handler === undefined) {
      throw new WaybillError('NO_HANDLER', `this ${kind} has no handler`, {
        got: type,
        allowed: [...handlers.keys()].slice(0, 20).join(', ') || 'none: nothing is registered',
        where: 'execute',
      })
    }
    const { schema } = request.requestType
    const run = async (): Promise<Result> => handler(schema === undefined ? payload : await validate(schema, payload, type))
    return currentScope().correlationId === undefined ? withScope({ correlationId: newId() }, run) : run()
  }

  return { register, execute }
}
