/** The cart. It lasts as long as the page: nothing is kept on the device. */

import { told } from './telling.js'

const FREE_FROM = 60
const SHIPPING = 4.9

const lines = new Map()
const listeners = new Set()
let offered = false

const changed = () => listeners.forEach((listener) => listener())

export const cart = {
  /** Call when something has changed. */
  heard: (listener) => listeners.add(listener),
  lines: () => [...lines.values()],
  pieces: () => cart.lines().reduce((sum, line) => sum + line.quantity, 0),
  value: () => Math.round(cart.lines().reduce((sum, { product, quantity }) => sum + product.price * quantity, 0) * 100) / 100,
  shipping: () => (offered || cart.value() >= FREE_FROM ? 0 : SHIPPING),
  isOffered: () => offered,

  add(product) {
    const line = lines.get(product.item) || { product, quantity: 0 }
    lines.set(product.item, { product, quantity: line.quantity + 1 })
    told('add_to_cart', { ...about(product), value: product.price })
    changed()
  },
  remove(product) {
    const { quantity } = lines.get(product.item)
    lines.delete(product.item)
    told('remove_from_cart', { ...about(product), quantity, value: product.price * quantity })
    changed()
  },
  /** The help that was offered is taken. */
  take() {
    offered = true
    told('select_promotion')
    changed()
  },
  /** Bought: what it was worth, goods alone. */
  buy() {
    const value = cart.value()
    told('purchase', { value })
    lines.clear()
    offered = false
    changed()
    return value
  },
}

/** What an event tells of a product. */
export const about = ({ item, category, price }) => ({ item, category, price })
