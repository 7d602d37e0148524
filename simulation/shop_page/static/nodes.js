/** Nodes made by script: text is text, and nothing is ever read as HTML. */

const SVG = 'http://www.w3.org/2000/svg'

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value)
    else if (value === true) node.setAttribute(name, '')
    else if (value !== false && value != null) node.setAttribute(name, value)
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false))
  return node
}

/** `element('a', { href: '/', onclick: act }, 'Home')`; null and false are left out. */
export const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children)

export const drawn = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children)

/** Put these in place of what a node holds. */
export const show = (node, ...children) => node.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false))
