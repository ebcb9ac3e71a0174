import { spawn } from 'node:child_process'

/**
 * A small process that runs `script` (of `sh`, with `args` as $1, $2 …) once this process is gone, by whatever it dies of, or `end` was called.
 * Its input ends then, also by SIGKILL, when nobody can clean up any more.
 */
export function guard(script: string, args: readonly string[]): { end(): void } {
  if (process.platform === 'win32') return { end: () => {} }
  // Of a group of its own, so that Ctrl-C in a terminal reaches its owner only.
  const child = spawn('/bin/sh', ['-c', `cat > /dev/null\n${script}`, 'sh', ...args], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  // Without a guard everything works all the same; only a killed process leaves something behind then.
  child.on('error', () => {})
  child.stdin.on('error', () => {})
  child.unref()
  // A pipe is a socket here, which the type doesn't say.
  if ('unref' in child.stdin && typeof child.stdin.unref === 'function') child.stdin.unref()
  return { end: () => child.stdin.end() }
}
