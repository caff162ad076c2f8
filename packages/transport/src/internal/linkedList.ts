/** A place in a {@link List}. Made once and reused, so that moving a value in and out allocates nothing. */
export class Node<A> {
  readonly value: A
  list: List<A> | undefined = undefined
  previous: Node<A> | undefined = undefined
  next: Node<A> | undefined = undefined
  constructor(value: A) {
    this.value = value
  }
}

/** A doubly linked list: insertion at the end and removal from anywhere take constant time. */
export class List<A> {
  size = 0
  head: Node<A> | undefined = undefined
  tail: Node<A> | undefined = undefined

  /** Puts a node that is in no list behind `previous`, or first. */
  private link(node: Node<A>, previous: Node<A> | undefined): void {
    const next = previous === undefined ? this.head : previous.next
    node.list = this
    node.previous = previous
    node.next = next
    if (previous === undefined) this.head = node
    else previous.next = node
    if (next === undefined) this.tail = node
    else next.previous = node
    this.size++
  }

  push(node: Node<A>): void {
    this.link(node, this.tail)
  }

  /** Puts a node behind the last value that does not come after it: at the end, in the usual case. */
  insert(node: Node<A>, comesAfter: (other: A, value: A) => boolean): void {
    let previous = this.tail
    while (previous !== undefined && comesAfter(previous.value, node.value)) previous = previous.previous
    this.link(node, previous)
  }

  /** Takes a node out; one that is not in this list is left alone. */
  remove(node: Node<A>): void {
    if (node.list !== this) return
    const { next, previous } = node
    if (previous === undefined) this.head = next
    else previous.next = next
    if (next === undefined) this.tail = previous
    else next.previous = previous
    node.list = undefined
    node.previous = undefined
    node.next = undefined
    this.size--
  }
}
