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

  /** Puts a node that is in no list at the end. */
  push(node: Node<A>): void {
    const { tail } = this
    node.list = this
    node.previous = tail
    if (tail === undefined) this.head = node
    else tail.next = node
    this.tail = node
    this.size++
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
