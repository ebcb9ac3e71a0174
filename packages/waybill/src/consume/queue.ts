/** First in, first out. Taking one costs the same however many there are. */
export interface Queue<T> {
  push(item: T): void
  /** The oldest, and takes it out. */
  shift(): T | undefined
  /** The oldest, and leaves it. */
  peek(): T | undefined
  readonly size: number
}

// Taken places at the front of the array are given back once they are this many and half of it: cheap on average, and memory follows the size.
const TAKEN_MAX = 1024

export function createQueue<T>(): Queue<T> {
  let items: (T | undefined)[] = []
  let head = 0
  return {
    push(item) {
      items.push(item)
    },
    shift() {
      if (head === items.length) return undefined
      const item = items[head]
      items[head++] = undefined
      if (head === items.length) {
        // A long array is dropped and not emptied, so that a burst leaves nothing behind.
        if (head > TAKEN_MAX) items = []
        else items.length = 0
        head = 0
      } else if (head >= TAKEN_MAX && head * 2 >= items.length) {
        items = items.slice(head)
        head = 0
      }
      return item
    },
    peek: () => items[head],
    get size() {
      return items.length - head
    },
  }
}
